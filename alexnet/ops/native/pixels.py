"""The kernels that work on the pixels of single images, as NumPy arrays; calls let other Python threads run."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from alexnet.ops.native import _check, _loaded


class _Axis(ctypes.Structure):
    _fields_ = [
        ("first", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("size", "taps", "length")),
    ]


class Axis(NamedTuple):
    """Resampling along one axis: output i is the sum over t of weights[i, t] * input[first[i] + t].

    first: (size,) int32, each from 0 to length - taps; weights: (size, taps) int32, in units of 2**-22; length: of the
    input.
    """

    first: np.ndarray
    weights: np.ndarray
    length: int

    def part(self, start: int, size: int, *, reflect: bool = False) -> Axis:
        """Only the outputs start, ..., start + size - 1, in that order or in the opposite one."""
        kept = slice(start, start + size)
        first, weights = self.first[kept], self.weights[kept]
        if reflect:
            first, weights = first[::-1], weights[::-1]
        return Axis(np.ascontiguousarray(first), np.ascontiguousarray(weights), self.length)


def takes(pixels: np.ndarray) -> bool:
    """Whether the kernels can read such an image: (H, W, 3) uint8, the bytes of each row one after the other."""
    return pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.strides[1:] == (3, 1)


def crop(pixels: np.ndarray, top: int, left: int, reflect: bool, out: np.ndarray) -> None:
    """Fill `out` (h, w, 3), contiguous, from row `top` and column `left` on, reflected left-right or not."""
    height, width, _ = out.shape
    assert out.flags.c_contiguous
    library = _loaded()
    status = library.functions.alexnet_crop(
        pixels.ctypes.data, *pixels.shape[:2], pixels.strides[0], top, left, height, width, reflect, out.ctypes.data,
        library.instruction_set,
    )  # fmt: skip
    _check(status)


def resample(pixels: np.ndarray, rows: Axis, columns: Axis, out: np.ndarray) -> None:
    """Fill `out` (rows, columns, 3), contiguous: along x, rounded to bytes, then along y, rounded again."""
    assert out.shape == (len(rows.first), len(columns.first), 3) and out.flags.c_contiguous
    assert pixels.shape[:2] == (rows.length, columns.length)
    library = _loaded()
    c_rows, c_columns = _c_axis(rows), _c_axis(columns)
    status = library.functions.alexnet_resample(
        pixels.ctypes.data,
        pixels.strides[0],
        ctypes.addressof(c_columns),
        ctypes.addressof(c_rows),
        out.ctypes.data,
        library.instruction_set,
    )
    _check(status)


def _c_axis(axis: Axis) -> _Axis:
    size, taps = axis.weights.shape
    return _Axis(axis.first.ctypes.data, axis.weights.ctypes.data, size, taps, axis.length)

"""From an image of any size to the square of it that networks see, or straight to one crop of that square."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from alexnet.ops import native
from alexnet.ops.native import pixels as kernels
from alexnet.ops.native.pixels import Axis

Filter = Literal["bilinear", "bicubic"]

_SUPPORT: dict[Filter, float] = {"bilinear": 1.0, "bicubic": 2.0}
_PILLOW: dict[Filter, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_ONE = 2.0**22
_MOST_TAPS = 64
"""More inputs an output than that: the few such images are Pillow's, so that no weights of megabytes are kept."""


def to_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale (H, W, 3) uint8 to a shorter side of `size` and keep the centre square: (size, size, 3) uint8 (paper 2).

    Shrinking averages over all covered pixels (a triangle filter as wide as the scale), enlarging is bicubic. An image
    whose shorter side is `size` already is only cropped, and one that is that square is returned as it is.
    """
    height, width = pixels.shape[:2]
    if min(height, width) == size:
        top, left = (height - size) // 2, (width - size) // 2
        return np.ascontiguousarray(pixels[top : top + size, left : left + size])
    box, resampling = _square_of(height, width, size)
    out = np.empty((size, size, 3), np.uint8)
    _resample(pixels, box, resampling, out)
    return out


def cut_crop(square: np.ndarray, box: np.ndarray, flip: bool, out: np.ndarray) -> None:
    """Write one crop of a (S, S, 3) uint8 square into `out` (h, w, 3), resized to it where the box has another size.

    box: top, left, height, width; flip: reflect left-right.
    """
    top, left, height, width = (int(value) for value in box)
    if (height, width) == out.shape[:2]:
        _cut(square, top, left, flip, out)
        return
    crop = square[top : top + height, left : left + width]
    _resample(crop, _Box(0, 0, width, height), "bilinear", out, reflect=flip)


def cut_square_crop(pixels: np.ndarray, size: int, box: np.ndarray, flip: bool, out: np.ndarray) -> None:
    """The same pixels as `cut_crop(to_square(pixels, size), box, flip, out)`, without the rest of the square."""
    height, width = pixels.shape[:2]
    top, left, crop_height, crop_width = (int(value) for value in box)
    if (crop_height, crop_width) != out.shape[:2]:
        cut_crop(to_square(pixels, size), box, flip, out)
    elif min(height, width) == size:
        _cut(pixels, (height - size) // 2 + top, (width - size) // 2 + left, flip, out)
    else:
        whole, resampling = _square_of(height, width, size)
        _resample(pixels, whole, resampling, out, size=(size, size), corner=(top, left), reflect=flip)


class _Box(NamedTuple):
    """A part of an image, in pixels and their fractions."""

    left: float
    top: float
    right: float
    bottom: float


def _square_of(height: int, width: int, size: int) -> tuple[_Box, Filter]:
    """The centre part of an image that becomes its square, and the filter."""
    short = min(height, width)
    # Sides after scaling; each at least `size`, also where rounding would say otherwise.
    new_width, new_height = (
        size if side == short else max(size, round(side * size / short)) for side in (width, height)
    )
    left, top = (new_width - size) // 2, (new_height - size) // 2
    # Resampling only the part that is kept gives the same pixels as cropping afterwards, without the rest's cost.
    box = _Box(
        left * width / new_width,
        top * height / new_height,
        min(width, (left + size) * width / new_width),
        min(height, (top + size) * height / new_height),
    )
    return box, "bilinear" if short > size else "bicubic"


def _cut(pixels: np.ndarray, top: int, left: int, reflect: bool, out: np.ndarray) -> None:
    if native.AVAILABLE and kernels.takes(pixels):
        kernels.crop(pixels, top, left, reflect, out)
        return
    crop = pixels[top : top + out.shape[0], left : left + out.shape[1]]
    out[...] = crop[:, ::-1] if reflect else crop


def _resample(
    pixels: np.ndarray,
    box: _Box,
    resampling: Filter,
    out: np.ndarray,
    *,
    size: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    reflect: bool = False,
) -> None:
    """Resample `box` to `size` (rows, columns; None: that of `out`) and write the part from `corner` on into `out`.

    The weights are Pillow's, and so are the bytes that the kernel gives, but for a level here and there where the
    height shrinks much more than the width: since version 13 Pillow resamples those along y first, the kernel never.
    """
    height, width = pixels.shape[:2]
    rows, columns = size or out.shape[:2]
    if (
        native.AVAILABLE
        and kernels.takes(pixels)
        and _taps(width, height, box, rows, columns, resampling) <= _MOST_TAPS
    ):
        vertical = resampling_axis(height, box.top, box.bottom, rows, resampling)
        horizontal = resampling_axis(width, box.left, box.right, columns, resampling)
        kernels.resample(
            pixels,
            vertical.part(corner[0], out.shape[0]),
            horizontal.part(corner[1], out.shape[1], reflect=reflect),
            out,
        )
        return
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((columns, rows), _PILLOW[resampling], box)
    _cut(np.asarray(image), *corner, reflect, out)


def _taps(width: int, height: int, box: _Box, rows: int, columns: int, resampling: Filter) -> float:
    scale = max(1.0, (box.right - box.left) / columns, (box.bottom - box.top) / rows)
    return 2 * _SUPPORT[resampling] * scale + 1


@lru_cache(maxsize=4096)
def resampling_axis(length: int, start: float, stop: float, size: int, resampling: Filter) -> Axis:
    """The weights that bring the part from `start` to `stop` of `length` inputs to `size` outputs.

    Those of Pillow (src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc), to the last bit: it keeps
    the part's ends in single precision, and everything else in double.
    """
    first_edge, last_edge = np.float32(start), np.float32(stop)
    scale = float(last_edge - first_edge) / size
    width = max(scale, 1.0)
    support = _SUPPORT[resampling] * width
    centers = float(first_edge) + (np.arange(size) + 0.5) * scale
    low = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    high = np.minimum((centers + support + 0.5).astype(np.int64), length)
    taps = int((high - low).max())
    # A window of `taps` inputs that holds low .. high - 1 and does not reach over the end.
    first = np.minimum(low, length - taps)
    inputs = first[:, None] + np.arange(taps)
    inside = (inputs >= low[:, None]) & (inputs < high[:, None])
    distances = (inputs - centers[:, None] + 0.5) * (1.0 / width)
    weights = np.where(inside, _FILTERS[resampling](np.abs(distances)), 0.0)
    total = np.zeros(size)
    for tap in range(taps):  # one after the other, as Pillow adds them
        total += weights[:, tap]
    weights = np.divide(weights, total[:, None], out=weights, where=total[:, None] != 0)
    fixed = np.trunc(weights * _ONE + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    return Axis(first.astype(np.int32), fixed, length)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _cubic(x: np.ndarray) -> np.ndarray:
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}

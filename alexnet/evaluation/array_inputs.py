"""NumPy arrays and torch tensors to RGB pixels. What they mean is unambiguous or stated, and never guessed.

An array does not say which axis is the channels, or which number is white. A wrong guess would give a prediction
that looks like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet.data.decode import decode_picture
from alexnet.errors import UserError

Layout = Literal["HWC", "CHW"]
ValueRange = tuple[float, float]

_LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_CHANNELS = (1, 3, 4)
_SHAPES = "(H, W), (H, W, C), (C, H, W), or a batch (N, H, W, C) or (N, C, H, W), with C = 1, 3 or 4 channels"
_TOLERANCE = 1e-3
"""By how much of the range values may lie outside, a quarter of a level: a normalization undone in float16 rounds."""


@dataclass(frozen=True)
class ArrayFormat:
    """How the caller says arrays and tensors are to be read; None: only what is unambiguous is.

    Attributes:
        layout: "HWC" for channels on the last axis, "CHW" for channels before height and width.
        value_range: The values of black and of white, for example (0, 1).
    """

    layout: Layout | None = None
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        """Raises UserError for a layout or a range that cannot be."""
        if self.layout is not None and self.layout not in _LAYOUTS:
            raise UserError(f"the layout of an array is {' or '.join(_LAYOUTS)}, not {self.layout!r}.")
        if self.value_range is None:
            return
        try:
            low, high = map(float, self.value_range)
        except (TypeError, ValueError):
            low = high = 0.0
        if not (np.isfinite([low, high]).all() and low < high):
            raise UserError(
                "value_range is the value of black and that of white, for example (0, 1) or (0, 255), not "
                f"{self.value_range!r}."
            )


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor on any device; of a type that NumPy lacks as float32. Raises UserError."""
    try:
        tensor = tensor.detach().cpu()
        if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float32, torch.float64):
            tensor = tensor.float()
        return tensor.numpy()
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantized, without storage
        kind = f"{str(tensor.dtype).removeprefix('torch.')} tensor, {tensor.layout}, on {tensor.device}"
        raise UserError(f"a {kind} has no plain values; give a dense tensor of numbers") from None


def images_of(array: np.ndarray, layout: Layout | None) -> np.ndarray:
    """Return a view (N, H, W, C) of the images of an array, C = 1 (gray), 3 (RGB) or 4 (RGB and opacity).

    Args:
        array: Of shape (H, W), (H, W, C), (C, H, W), (N, H, W, C) or (N, C, H, W). (N, H, W) is no batch: gray images
            are (N, 1, H, W) or (N, H, W, 1).
        layout: Which of two possible shapes it is; None: refuse what could be both.

    Raises:
        UserError: For a shape that is no image, or not clear.
    """
    if not isinstance(array, np.ma.MaskedArray):  # refused later, by name
        array = np.asarray(array)  # np.matrix keeps two dimensions whatever is done to it
    shape = tuple(array.shape)
    if array.ndim not in (2, 3, 4):
        what = "an array of objects" if array.dtype == object else f"an array of shape {shape}"
        encoded = "; give the bytes of an image file as bytes, array.tobytes()" if array.ndim == 1 else ""
        raise UserError(f"{what} is not an image{encoded or f'; give {_SHAPES}'}")
    if 0 in array.shape:
        raise UserError(f"an array of shape {shape} has no pixels")
    if array.ndim == 2:
        return array[None, :, :, None]
    image = array.shape[-3:]
    possible = [name for name, size in (("HWC", image[2]), ("CHW", image[0])) if size in _CHANNELS]
    if layout is None and len(possible) == 2:
        raise UserError(f"the shape {shape} can be read as HWC or as CHW; state it with layout='HWC' or layout='CHW'")
    if not possible:
        raise UserError(f"an array of shape {shape} is not an image; give {_SHAPES}")
    if layout is None and array.ndim == 3 and possible == ["CHW"] and shape[0] == 4:
        raise UserError(
            f"an array of shape {shape} is four gray images or one image with opacity; give array[:, None] for the "
            "first, layout='CHW' for the second"
        )
    if layout is not None and layout not in possible:
        raise UserError(f"an array of shape {shape} does not have 1, 3 or 4 channels in the layout {layout}")
    batch = array if array.ndim == 4 else array[None]
    return batch if (layout or possible[0]) == "HWC" else batch.transpose(0, 2, 3, 1)


def pixels_of(image: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """Return an image of `images_of` as (H, W, 3) uint8 RGB, opacity laid over white.

    Args:
        image: Of shape (H, W, C): uint8, bool (false is black), or any other real numbers with `value_range`.
        value_range: The values of black and of white.

    Raises:
        UserError: For other types of numbers, and for values outside the range.
    """
    values = _to_bytes(image, value_range)
    if image.shape[2] == 4:
        return decode_picture(Image.fromarray(np.ascontiguousarray(values)))
    return np.repeat(values, 3, axis=2) if image.shape[2] == 1 else values


def _to_bytes(image: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """The values as uint8: black 0, white 255."""
    kind = image.dtype.kind
    if kind == "b":
        return image.astype(np.uint8) * 255
    if kind not in "uif":
        raise UserError(f"an array of {image.dtype} is not an image; give uint8 values from 0 to 255")
    if isinstance(image, np.ma.MaskedArray):
        raise UserError("a masked array has no values under its mask; give array.filled(value)")
    if value_range is None:
        if image.dtype == np.uint8:
            return image
        usual = {"f": "(0, 1)", "i": "(0, 255)", "u": f"(0, {np.iinfo(image.dtype).max})" if kind == "u" else ""}[kind]
        raise UserError(
            f"{image.dtype} values can have any range; give uint8 values from 0 to 255, or state the values of black "
            f"and white, for example value_range={usual}"
        )
    low, high = map(float, value_range)
    values = image.astype(np.result_type(image.dtype, np.float32))
    least, most = float(values.min()), float(values.max())
    slack = _TOLERANCE * (high - low)
    if not (least >= low - slack and most <= high + slack):  # not for nan either
        given = f"from {least:g} to {most:g}" if np.isfinite([least, most]).all() else "not finite"
        raise UserError(
            f"its values are {given}, but value_range is ({low:g}, {high:g}); give the image before it is normalized, "
            "or state its own range"
        )
    return np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)

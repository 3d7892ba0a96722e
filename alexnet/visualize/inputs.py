"""A picture as the network sees it, and as a person sees the same pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import to_square
from alexnet.errors import UserError
from alexnet.evaluation.inputs import ImageInput, read_image
from alexnet.evaluation.views import cut_views, view_crops

_LONGEST = 4
"""The longer side of an image that is looked at as a whole, in shorter sides."""


class CenterCrop(NamedTuple):
    """The part of an image that the network looks at."""

    pixels: np.ndarray
    """(h, w, 3) uint8 RGB, for people."""
    inputs: Tensor
    """(1, 3, h, w) float32, for the network."""


def whole_image(
    image: ImageInput, preprocessing: Preprocessing, side: int, stride: int, device: torch.device | str = "cpu"
) -> CenterCrop:
    """A whole image for the dense form of the network: its shorter side scaled to `side` pixels.

    image: as for `read_image`. Of either side as much is cut off around the middle as no window of the network's size
    has room for, windows being `stride` pixels apart; a very long image is cut to four times its width. The mean that
    is subtracted is the training images' mean colour, since there is no mean image of this size. Raises UserError for
    a side that is too short, and for an image that cannot be read.
    """
    crop_size = preprocessing.crop_size
    if side < crop_size:
        raise UserError(f"a side of {side} pixels is too short for a network that sees {crop_size}")
    pixels = read_image(image)
    short = min(pixels.shape[:2])
    height, width = (max(side, round(edge * side / short)) for edge in pixels.shape[:2])
    resampling = Image.Resampling.BILINEAR if short > side else Image.Resampling.BICUBIC
    kept_height, kept_width = (
        crop_size + (min(edge, _LONGEST * side) - crop_size) // stride * stride for edge in (height, width)
    )
    # Only the part that is kept is made: a panorama need not fit into memory at this size.
    top, left = (height - kept_height) / 2, (width - kept_width) / 2
    factors = pixels.shape[1] / width, pixels.shape[0] / height
    box = left * factors[0], top * factors[1], (left + kept_width) * factors[0], (top + kept_height) * factors[1]
    scaled = np.array(Image.fromarray(pixels).resize((kept_width, kept_height), resampling, box))
    by_channel = replace(preprocessing, mean_mode="channel")
    return CenterCrop(scaled, by_channel.normalize(torch.from_numpy(scaled).unsqueeze(0).to(device)))


def center_crop(image: ImageInput, preprocessing: Preprocessing, device: torch.device | str = "cpu") -> CenterCrop:
    """The centre crop of an image, as evaluation and prediction cut it; inputs on `device`.

    image: as for `read_image`: a path, an array (H, W, 3) uint8 RGB, a PIL image and so on. Raises UserError.
    """
    size, crop_size = preprocessing.image_size, preprocessing.crop_size
    square = torch.from_numpy(np.ascontiguousarray(to_square(read_image(image), size))).unsqueeze(0)
    crops, offsets, flips = cut_views(square, view_crops("center", size, crop_size), crop_size)
    inputs = preprocessing.normalize(crops.to(device), offsets.to(device), flips.to(device))
    return CenterCrop(crops[0].numpy(), inputs)

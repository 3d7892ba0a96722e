"""A picture as the network sees it, and as a person sees the same pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import to_square
from alexnet.evaluation.views import cut_views, view_crops


class CenterCrop(NamedTuple):
    """The part of an image that the network looks at."""

    pixels: np.ndarray
    """(h, w, 3) uint8 RGB, for people."""
    inputs: Tensor
    """(1, 3, h, w) float32, for the network."""


def center_crop(pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device | str = "cpu") -> CenterCrop:
    """The centre crop of an image (H, W, 3) uint8 RGB, as evaluation and prediction cut it; inputs on `device`."""
    size, crop_size = preprocessing.image_size, preprocessing.crop_size
    square = torch.from_numpy(np.ascontiguousarray(to_square(pixels, size))).unsqueeze(0)
    crops, offsets, flips = cut_views(square, view_crops("center", size, crop_size), crop_size)
    inputs = preprocessing.normalize(crops.to(device), offsets.to(device), flips.to(device))
    return CenterCrop(crops[0].numpy(), inputs)

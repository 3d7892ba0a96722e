"""From the maps of a layer back to the pixels that its units look at."""

from __future__ import annotations

import torch
from torch import Tensor

from alexnet.models.receptive_field import ReceptiveField


def spread_over_pixels(maps: Tensor, field: ReceptiveField, size: tuple[int, int]) -> Tensor:
    """Maps (N, rows, columns) as (N, height, width) for an image of `size` pixels, in the maps' dtype.

    Each unit's value stands at the middle of its receptive field; between them it is interpolated linearly, beyond the
    outermost ones it stays. (Stretching the maps over the image, as is usual, would put the first unit of as_run's
    conv5 nine pixels from what it looks at.)
    """
    rows = places_of_pixels(maps.shape[1], field, size[0]).to(maps)
    columns = places_of_pixels(maps.shape[2], field, size[1]).to(maps)
    return rows @ maps @ columns.T


def places_of_pixels(count: int, field: ReceptiveField, size: int) -> Tensor:
    """(size, count) float64: how much of each of `count` units' values a pixel has, along one axis of `size` pixels."""
    places = ((torch.arange(size, dtype=torch.float64) - field.center) / field.stride).clamp(0, count - 1)
    return (1 - (places[:, None] - torch.arange(count)).abs()).clamp(min=0)

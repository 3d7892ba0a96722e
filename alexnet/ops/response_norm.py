"""Local response normalisation (paper 3.3), across maps and within them: fast operators beside plain references.

Across maps:  y[i] = x[i] / (k + a * sum of x[j]**2 over j in i - size//2 .. i + size//2, inside the tower) ** beta
Within maps:  the same with the sum over a centred size x size window, truncated at the borders of the map.
`a` is alpha with alpha_convention "sum" (the printed formula), and alpha / (number of terms of a full window) with
"mean" (the 2012 source, Caffe and torch).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def response_norm_reference(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    *,
    alpha_convention: Literal["mean", "sum"],
    towers: int = 1,
) -> Tensor:
    """Normalisation across maps, written as the formula: (N, C, H, W) -> the same shape, in x's own dtype."""
    scale = alpha / size if alpha_convention == "mean" else alpha
    outputs = []
    for tower in x.chunk(towers, dim=1):
        squares = tower * tower
        channels = tower.shape[1]
        sums = [squares[:, max(0, i - size // 2) : i + size // 2 + 1].sum(dim=1) for i in range(channels)]
        outputs.append(tower / (k + scale * torch.stack(sums, dim=1)) ** beta)
    return torch.cat(outputs, dim=1)


def spatial_norm_reference(
    x: Tensor, size: int, alpha: float, beta: float, k: float, *, alpha_convention: Literal["mean", "sum"]
) -> Tensor:
    """Normalisation within maps, written as the formula: (N, C, H, W) -> the same shape, in x's own dtype."""
    scale = alpha / size**2 if alpha_convention == "mean" else alpha
    sums = F.avg_pool2d(x * x, size, 1, size // 2, count_include_pad=True, divisor_override=1)
    return x / (k + scale * sums) ** beta


response_norm = response_norm_reference
spatial_norm = spatial_norm_reference

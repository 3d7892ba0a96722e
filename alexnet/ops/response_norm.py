"""Local response normalisation (paper 3.3), across maps and within them, beside their formulas.

    y[i] = x[i] / (k + a * sum of x[j]**2 over the window of i) ** beta

Across maps the window is the `size` maps from i - size // 2 on, as far as they exist in i's tower. Within a map it is
the size x size positions around i, as far as they lie inside the map. `a` is alpha with alpha_convention "sum" (the
printed formula), and alpha / (number of terms of a full window) with "mean" (the 2012 source, Caffe and torch).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.ops.block import Block, apply_block
from alexnet.ops.chunked_norm import Norm

AlphaConvention = Literal["mean", "sum"]


def norm_across_maps(
    size: int, alpha: float, beta: float, k: float, *, alpha_convention: AlphaConvention, towers: int = 1
) -> Norm:
    """The settings of `response_norm` as what a block takes. Raises ValueError when k is not positive."""
    _check_k(k)
    return Norm(size, alpha / size if alpha_convention == "mean" else alpha, beta, k, towers)


def norm_within_maps(size: int, alpha: float, beta: float, k: float, *, alpha_convention: AlphaConvention) -> Norm:
    """The settings of `spatial_norm` as what a block takes. Raises ValueError for an even size or k not positive."""
    if size % 2 == 0:
        raise ValueError(f"the window of a spatial norm is centred: its side is odd, not {size}")
    _check_k(k)
    return Norm(size, alpha / size**2 if alpha_convention == "mean" else alpha, beta, k, None)


def response_norm(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    *,
    alpha_convention: AlphaConvention,
    towers: int = 1,
) -> Tensor:
    """Normalise across neighbouring maps (paper 3.3): (N, C, H, W) -> the same shape, dtype and memory format.

    size: maps in the window. towers: equal parts of the C maps that no window reaches across.
    Raises ValueError when C is not a multiple of towers, or k is not positive.
    """
    norm = norm_across_maps(size, alpha, beta, k, alpha_convention=alpha_convention, towers=towers)
    return apply_block(x, Block(norm=norm))


def spatial_norm(
    x: Tensor, size: int, alpha: float, beta: float, k: float, *, alpha_convention: AlphaConvention
) -> Tensor:
    """Normalise within each map (S: type=rnorm): (N, C, H, W) -> the same shape, dtype and memory format.

    size: side of the square window, odd. Raises ValueError when it is even, or k is not positive.
    """
    norm = norm_within_maps(size, alpha, beta, k, alpha_convention=alpha_convention)
    return apply_block(x, Block(spatial=norm))


def _check_k(k: float) -> None:
    # With k = 0 the denominators where all maps are zero would be zero.
    if k <= 0:
        raise ValueError(f"k = {k}; a response norm needs a positive k")


def response_norm_reference(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    *,
    alpha_convention: AlphaConvention,
    towers: int = 1,
) -> Tensor:
    """`response_norm` written as its formula, in x's own dtype; slow."""
    scale = alpha / size if alpha_convention == "mean" else alpha
    outputs = []
    for tower in x.chunk(towers, dim=1):
        squares = tower * tower
        firsts = [i - size // 2 for i in range(tower.shape[1])]
        sums = [squares[:, max(0, first) : first + size].sum(dim=1) for first in firsts]
        outputs.append(tower / (k + scale * torch.stack(sums, dim=1)) ** beta)
    return torch.cat(outputs, dim=1)


def spatial_norm_reference(
    x: Tensor, size: int, alpha: float, beta: float, k: float, *, alpha_convention: AlphaConvention
) -> Tensor:
    """`spatial_norm` written as its formula, in x's own dtype; slow."""
    scale = alpha / size**2 if alpha_convention == "mean" else alpha
    sums = F.avg_pool2d(x * x, size, 1, size // 2, count_include_pad=True, divisor_override=1)
    return x / (k + scale * sums) ** beta

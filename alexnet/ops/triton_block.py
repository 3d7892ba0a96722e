"""The block of `block.py` on a GPU, composed of Triton kernels: a norm with its ReLU, a spatial norm, a pool with its.

Nothing but the block's input and a byte an output is kept for backward, as on a CPU; what lies between the parts is
written and read once, and made again in backward where a spatial norm needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alexnet.ops import triton_norm, triton_pool
from alexnet.ops.triton_norm import norm_backward, norm_forward
from alexnet.ops.triton_pool import pool_backward, pool_forward
from alexnet.ops.triton_spatial import spatial_norm_backward, spatial_norm_forward

if TYPE_CHECKING:
    from alexnet.ops.block import Block
    from alexnet.ops.chunked_norm import Norm


def takes(maps: Tensor, block: Block) -> bool:
    """Whether the kernels do this block on these maps: channels-last, float32 or bfloat16, on a GPU with Triton."""
    pool = block.pool
    has_kernel = block.norm is not None or block.spatial is not None or pool is not None
    return has_kernel and triton_norm.supports(maps) and (pool is None or triton_pool.supports(maps, pool.size))


def block_forward(block: Block, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs, and for each which position of its window won, in uint8 (empty without a pool)."""
    values, relu = _before_spatial(block, maps), _relu_is_left(block)
    if block.spatial is not None:
        values = spatial_norm_forward(values, **_settings(block.spatial))
    if block.pool is None:
        return values, maps.new_empty(0, dtype=torch.uint8)
    size, stride, ceil_mode = block.pool.size, block.pool.stride, block.pool.ceil_mode
    # Without a norm between them, a ReLU before the pool is the same thing after it.
    relu = relu or block.relu_last
    return pool_forward(values, size=size, stride=stride, ceil_mode=ceil_mode, relu_after=relu)


def block_backward(block: Block, grad_outputs: Tensor, maps: Tensor, winners: Tensor) -> Tensor:
    """The gradient with respect to the maps, from the maps and the winners."""
    gradient = grad_outputs
    if block.pool is not None:
        height, width = maps.shape[2:]
        pool = block.pool
        gradient = pool_backward(gradient, winners, input_size=(height, width), size=pool.size, stride=pool.stride)
    if block.spatial is not None:
        gradient = spatial_norm_backward(gradient, _before_spatial(block, maps), **_settings(block.spatial))
    if block.norm is not None:
        settings = _settings(block.norm)
        return norm_backward(gradient, maps, towers=block.norm.towers or 1, relu_first=block.relu_first, **settings)
    if block.relu_first and not _relu_is_left(block):
        return torch.where(maps <= 0, 0, gradient)
    return gradient


def _before_spatial(block: Block, maps: Tensor) -> Tensor:
    """The maps after the ReLU and the norm across them, as far as these are not left to the pool."""
    if block.norm is not None:
        settings = _settings(block.norm)
        return norm_forward(maps, towers=block.norm.towers or 1, relu_first=block.relu_first, **settings)
    return maps.relu() if block.relu_first and not _relu_is_left(block) else maps


def _relu_is_left(block: Block) -> bool:
    """Whether the pool does the ReLU that comes before it."""
    return block.relu_first and block.norm is None and block.spatial is None


def _settings(norm: Norm) -> dict[str, Any]:
    return {"size": norm.size, "scale": norm.scale, "beta": norm.beta, "k": norm.k}

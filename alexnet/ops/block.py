"""Everything that lies between two convolutions as one operator: ReLU, normalisation, pooling.

On their own, these layers move far more memory than they compute: each reads and writes the largest tensors of the
network. As one operator the maps are read once and only the pooled maps are written; the backward pass computes the
rest again from the block's input, which the convolution before it has made anyway. Arithmetic is float32 whatever the
dtype of the maps. On a CPU the kernels of `native` do it, on a GPU those of `triton_block`, elsewhere plain torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.ops import native, triton_block
from alexnet.ops.chunked_norm import Norm, check_norm, formula, needs_torch_operations, normalize


class Pool(NamedTuple):
    """Max pooling over square windows."""

    size: int
    stride: int
    ceil_mode: bool


class Block(NamedTuple):
    """What is applied to maps, in this order; each part may be absent."""

    relu_first: bool = False
    norm: Norm | None = None
    """Across maps (towers is a number)."""
    spatial: Norm | None = None
    """Within maps (towers is None)."""
    pool: Pool | None = None
    relu_last: bool = False
    """Only together with a pool."""


def apply_block(maps: Tensor, block: Block) -> Tensor:
    """Run the block on feature maps.

    Args:
        maps: (N, C, H, W), floating point.
        block: what to apply.

    Returns:
        (N, C, H', W') in the dtype and memory format of `maps`. It can be differentiated any number of times, in
        reverse and in forward mode.

    Raises:
        ValueError: If a norm is impossible, its towers do not divide C, or a window of the pool does not fit the maps.
    """
    if needs_torch_operations(maps):
        return plain_block(maps, block, formula)
    _check(maps, block)
    channels_last = maps.contiguous(memory_format=torch.channels_last)
    if not _has_kernels(channels_last, block):
        return plain_block(maps, block, normalize)
    outputs = torch.ops.alexnet.block(channels_last, *_flat(block))[0]
    return outputs if maps.is_contiguous(memory_format=torch.channels_last) else outputs.contiguous()


def plain_block(maps: Tensor, block: Block, norm_by: Callable[[Tensor, Norm], Tensor] = normalize) -> Tensor:
    """The block layer by layer in operations of torch; `norm_by` is `normalize` (fast) or `formula` (transformable)."""
    if block.relu_first:
        maps = F.relu(maps)
    for norm in (block.norm, block.spatial):
        if norm is not None:
            maps = norm_by(maps, norm)
    if block.pool is not None:
        maps = F.max_pool2d(maps, block.pool.size, block.pool.stride, ceil_mode=block.pool.ceil_mode)
    return F.relu(maps) if block.relu_last else maps


def _check(maps: Tensor, block: Block) -> None:
    """Refuse what the kernels would compute nonsense for."""
    channels, height, width = maps.shape[1:]
    for norm in (block.norm, block.spatial):
        if norm is not None:
            check_norm(norm)
    if block.norm is not None and channels % (block.norm.towers or 1):
        raise ValueError(f"{channels} channels cannot be divided into {block.norm.towers} towers")
    if block.pool is not None:
        size, stride, ceil_mode = block.pool
        if size < 1 or stride < 1 or min(_pooled_side(side, size, stride, ceil_mode) for side in (height, width)) < 1:
            raise ValueError(f"a {size} x {size} window with stride {stride} does not fit maps of {height} x {width}")


def _has_kernels(maps: Tensor, block: Block) -> bool:
    """Whether kernels of ours can do this block on these maps."""
    if maps.device.type == "cuda":
        return triton_block.takes(maps, block)
    # A byte names the position in a pool's window.
    return native.takes(maps) and (block.pool is None or block.pool.size**2 < native.NO_GRADIENT)


# A custom operator takes numbers and lists of numbers: an absent part is an empty list.
_Flat = tuple[bool, list[float], list[float], list[int], bool]


def _flat(block: Block) -> _Flat:
    across, within, pool = block.norm, block.spatial, block.pool
    return (
        block.relu_first,
        [] if across is None else [float(value) for value in across if value is not None],
        [] if within is None else [float(value) for value in within if value is not None],
        [] if pool is None else [pool.size, pool.stride, int(pool.ceil_mode)],
        block.relu_last,
    )


@functools.lru_cache(maxsize=256)
def _unflat(
    relu_first: bool, norm: tuple[float, ...], spatial: tuple[float, ...], pool: tuple[int, ...], relu_last: bool
) -> Block:
    across = Norm(int(norm[0]), *norm[1:4], towers=int(norm[4])) if norm else None
    within = Norm(int(spatial[0]), *spatial[1:4], towers=None) if spatial else None
    return Block(relu_first, across, within, Pool(pool[0], pool[1], bool(pool[2])) if pool else None, relu_last)


# The operators as torch's dispatcher, torch.compile and autograd know them. (torch.library.custom_op would import the
# compiler at the first call, which takes seconds.)
_LIBRARY = torch.library.Library("alexnet", "DEF")
_PARTS = "bool relu_first, float[] norm, float[] spatial, int[] pool, bool relu_last"
_LIBRARY.define(f"block(Tensor maps, {_PARTS}) -> (Tensor, Tensor)")
_LIBRARY.define(f"block_backward(Tensor grad_outputs, Tensor maps, Tensor winners, {_PARTS}) -> Tensor")


def _hashable(parts: Sequence[Any]) -> list[Any]:
    return [tuple(part) if isinstance(part, list) else part for part in parts]


# `block` returns the outputs, and for each which position of its window won (empty without a pool).
@torch.library.impl(_LIBRARY, "block", "CPU")
def _(maps: Tensor, *block: Any) -> tuple[Tensor, Tensor]:
    record = _unflat(*_hashable(block))
    outputs, winners = _empty_outputs(maps, record.pool or ())
    native.block_forward(record, maps, outputs, winners)
    return outputs, winners


@torch.library.impl(_LIBRARY, "block", "CUDA")
def _(maps: Tensor, *block: Any) -> tuple[Tensor, Tensor]:
    return triton_block.block_forward(_unflat(*_hashable(block)), maps)


@torch.library.register_fake("alexnet::block", lib=_LIBRARY)
def _(maps: Tensor, relu_first: Any, norm: Any, spatial: Any, pool: Sequence[int], relu_last: Any) -> Any:
    return _empty_outputs(maps, pool)


def _empty_outputs(maps: Tensor, pool: Sequence[int]) -> tuple[Tensor, Tensor]:
    if not pool:
        return torch.empty_like(maps), maps.new_empty(0, dtype=torch.uint8)
    size, stride, ceil_mode = pool
    n, c, *sides = maps.shape
    shape = (n, c, *(_pooled_side(side, size, stride, ceil_mode) for side in sides))
    outputs = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    return outputs, torch.empty_like(outputs, dtype=torch.uint8)


def _pooled_side(side: int, size: int, stride: int, ceil_mode: bool | int) -> int:
    if not ceil_mode:
        return (side - size) // stride + 1
    pooled = (side - size + stride - 1) // stride + 1
    return pooled - 1 if (pooled - 1) * stride >= side else pooled  # the last window begins inside the map


@torch.library.impl(_LIBRARY, "block_backward", "CPU")
def _(grad_outputs: Tensor, maps: Tensor, winners: Tensor, *block: Any) -> Tensor:
    grad_maps = torch.empty_like(maps)
    upstream = grad_outputs.contiguous(memory_format=torch.channels_last)
    native.block_backward(_unflat(*_hashable(block)), maps, upstream, winners, grad_maps)
    return grad_maps


@torch.library.impl(_LIBRARY, "block_backward", "CUDA")
def _(grad_outputs: Tensor, maps: Tensor, winners: Tensor, *block: Any) -> Tensor:
    upstream = grad_outputs.contiguous(memory_format=torch.channels_last)
    return triton_block.block_backward(_unflat(*_hashable(block)), upstream, maps, winners)


@torch.library.register_fake("alexnet::block_backward", lib=_LIBRARY)
def _(grad_outputs: Any, maps: Tensor, winners: Any, *block: Any) -> Tensor:
    return torch.empty_like(maps)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    maps, *ctx.block = inputs
    ctx.save_for_backward(maps, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_outputs: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    maps, winners = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: this gradient will itself be differentiated, which the kernel cannot be
        outputs = plain_block(maps, _unflat(*_hashable(ctx.block)), formula)
        (grad_maps,) = torch.autograd.grad(outputs, maps, grad_outputs, create_graph=True)
    else:
        grad_maps = torch.ops.alexnet.block_backward(grad_outputs, maps, winners, *ctx.block)
    return grad_maps, None, None, None, None, None


torch.library.register_autograd("alexnet::block", _backward, setup_context=_save_for_backward, lib=_LIBRARY)

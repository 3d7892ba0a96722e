"""Response normalisation within each map (S: type=rnorm) as Triton kernels, for dense channels-last tensors.

The formulas are those of `spatial_norm` in `response_norm.py`. A shift within the map is a whole number of positions,
so that every load is aligned and 16 bytes wide; the 25 of a 5x5 window come from the caches. Backward is two kernels:
the first writes what is summed over windows, in float32, the second sums it; both compute the denominators from x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alexnet.ops.triton_norm import _load, _power
from alexnet.ops.triton_norm import supports as supports
from alexnet.ops.triton_runtime import constexpr, current_device_of, divide_up, jit, next_power_of_2, tl

_MAX_TILE_MAPS = 64
_TILE = 2048


def spatial_norm_forward(x: Tensor, *, size: int, scale: float, beta: float, k: float) -> Tensor:
    """y = x / (k + scale * sum of x**2 over size x size positions) ** beta; `scale` multiplies the sum.

    x: a tensor that `supports` accepts, (N, C, H, W); y has its shape, dtype and format. size: odd.
    """
    y = torch.empty_like(x)
    _launch(_forward, (x, y), x, size, scale, beta, k)
    return y


def spatial_norm_backward(grad_y: Tensor, x: Tensor, *, size: int, scale: float, beta: float, k: float) -> Tensor:
    """The gradient with respect to x, from x alone; grad_y in any memory format."""
    grad_y = grad_y.to(x.dtype).contiguous(memory_format=torch.channels_last)
    through = torch.empty_like(x, dtype=torch.float32)
    grad_x = torch.empty_like(x)
    _launch(_backward_through, (grad_y, x, through), x, size, scale, beta, k)
    _launch(_backward_sum, (grad_y, x, through, grad_x), x, size, scale, beta, k)
    return grad_x


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], x: Tensor, size: int, scale: float, beta: float, k: float
) -> None:
    if size % 2 == 0:
        raise ValueError(f"the window of a spatial norm is centred: its side is odd, not {size}")
    batch, maps, height, width = x.shape
    if x.numel() == 0:
        return
    block = min(_MAX_TILE_MAPS, next_power_of_2(maps))
    positions = batch * height * width
    with current_device_of(x):
        kernel[(divide_up(positions, _TILE // block), divide_up(maps, block))](
            *tensors, positions, scale, beta, k, MAPS=maps, HEIGHT=height, WIDTH=width, SIZE=size,
            FAST_POWER=beta == 0.75, ROWS=_TILE // block, BLOCK=block, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip


@jit
def _tile(positions, MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, ROWS: constexpr, BLOCK: constexpr):
    """Of a program's tile: row and column of its positions in their maps, offsets, and what there is."""
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    maps = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (position < positions) & (maps < MAPS)
    return position // WIDTH % HEIGHT, position % WIDTH, position.to(tl.int64) * MAPS + maps, mask


@jit
def _window_sum(
    pointer, row, column, offsets, mask, SQUARED: constexpr,
    MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, SIZE: constexpr, ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """The sum over the window of each position, as far as it lies inside the map; of squares with SQUARED."""
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for down in tl.static_range(-(SIZE // 2), SIZE // 2 + 1):
        for right in tl.static_range(-(SIZE // 2), SIZE // 2 + 1):
            inside = (row + down >= 0) & (row + down < HEIGHT) & (column + right >= 0) & (column + right < WIDTH)
            values = _load(pointer, offsets + (down * WIDTH + right) * MAPS, mask & inside, False)
            sums += values * values if SQUARED else values
    return sums


@jit
def _forward(
    x_pointer, y_pointer, positions, scale, beta, k,
    MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, SIZE: constexpr, FAST_POWER: constexpr,
    ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    row, column, offsets, mask = _tile(positions, MAPS, HEIGHT, WIDTH, ROWS, BLOCK)
    sums = _window_sum(x_pointer, row, column, offsets, mask, True, MAPS, HEIGHT, WIDTH, SIZE, ROWS, BLOCK)
    y = _load(x_pointer, offsets, mask, False) * _power(k + scale * sums, beta, FAST_POWER)
    tl.store(y_pointer + offsets, y.to(y_pointer.dtype.element_ty), mask=mask)


@jit
def _backward_through(
    g_pointer, x_pointer, through_pointer, positions, scale, beta, k,
    MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, SIZE: constexpr, FAST_POWER: constexpr,
    ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    row, column, offsets, mask = _tile(positions, MAPS, HEIGHT, WIDTH, ROWS, BLOCK)
    sums = _window_sum(x_pointer, row, column, offsets, mask, True, MAPS, HEIGHT, WIDTH, SIZE, ROWS, BLOCK)
    denominators = k + scale * sums
    direct = _load(g_pointer, offsets, mask, False) * _power(denominators, beta, FAST_POWER)
    through = direct * _load(x_pointer, offsets, mask, False) / denominators
    tl.store(through_pointer + offsets, through, mask=mask)


@jit
def _backward_sum(
    g_pointer, x_pointer, through_pointer, gx_pointer, positions, scale, beta, k,
    MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, SIZE: constexpr, FAST_POWER: constexpr,
    ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    row, column, offsets, mask = _tile(positions, MAPS, HEIGHT, WIDTH, ROWS, BLOCK)
    sums = _window_sum(x_pointer, row, column, offsets, mask, True, MAPS, HEIGHT, WIDTH, SIZE, ROWS, BLOCK)
    direct = _load(g_pointer, offsets, mask, False) * _power(k + scale * sums, beta, FAST_POWER)
    through = _window_sum(through_pointer, row, column, offsets, mask, False, MAPS, HEIGHT, WIDTH, SIZE, ROWS, BLOCK)
    grad_x = direct - 2.0 * scale * beta * _load(x_pointer, offsets, mask, False) * through
    tl.store(gx_pointer + offsets, grad_x.to(gx_pointer.dtype.element_ty), mask=mask)

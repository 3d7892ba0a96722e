"""Response normalisation across maps (paper 3.3) as Triton kernels, for dense channels-last tensors.

The formulas are those of `response_norm.py`, with `scale` multiplying the sum of squares; arithmetic is float32. An
optional ReLU comes first, so that neither its output nor its mask is ever written. Backward keeps nothing but x.

Two methods; which is faster on a given GPU is for a benchmark to say (neither has been measured on one):

"banded" (the default). A tile of 64 positions x 64 maps is read once, with 16-byte loads, and its window sums are a
matrix product with a band of ones on the tensor cores. The operands of that product are bfloat16, but nothing is lost:
a number is split into parts of 8 significant bits each. Squares of bfloat16 numbers have 16 bits, so two parts are
exact; float32 takes three. The band's ones are exact, and sums are float32. Wider towers take several tiles that
overlap. Larger tiles were tried with the compiler alone: they do not fit the registers of a multiprocessor. An element
of a tile costs 2 * 2 * 64 operations forward and twice that backward, against the 1000 and 1600 that an H100 can do in
the time in which it moves one (4 bytes forward, 6 backward at 3 TB/s; 800 TFLOP/s): the memory decides.

"shifted". The tile is read again for every place in the window. Neighbours come from the first-level cache, but a load
that is shifted by one element is not aligned, and goes through the load units element by element: 5 loads forward, and
backward 5 x 5 of x and 5 of the gradient, with 5 powers instead of 1. It takes windows of any size.

With "banded" a value that is not finite spreads to all maps of its tile at its position, not just to its window.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from alexnet.ops.triton_runtime import (
    INTERPRETING,
    can_run,
    constexpr,
    current_device_of,
    divide_up,
    jit,
    next_power_of_2,
    tl,
)

Method = Literal["banded", "shifted"]

_TILE_MAPS = 64
"""Most maps of a banded tile: of 128, backward would need more registers than a thread can have on Hopper."""
_ROWS = 64
"""Positions of a tile: the fewest that a Hopper tensor-core instruction takes."""
_TILES = 8
"""Tiles a program goes through with one band."""
_PARTS = {torch.bfloat16: 2, torch.float32: 3}
"""bfloat16 numbers that hold a square, or a product of the same accuracy, of each dtype."""


def supports(x: Tensor) -> bool:
    """Whether the kernels take this tensor: float32 or bfloat16 and channels-last, on a device with Triton."""
    return (
        x.dtype in _PARTS and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and can_run(x.device)
    )


def norm_forward(
    x: Tensor,
    *,
    size: int,
    scale: float,
    beta: float,
    k: float,
    towers: int,
    relu_first: bool = False,
    method: Method | None = None,
) -> Tensor:
    """y = x / (k + scale * sum of x**2 over `size` maps) ** beta, of max(x, 0) with relu_first.

    x: a tensor that `supports` accepts, (N, C, H, W); y has its shape, dtype and format. towers: equal parts of the C
    maps that no window reaches across. method: None chooses.
    """
    y = torch.empty_like(x)
    _launch(_forward_banded, _forward_shifted, (x, y), size, scale, beta, k, towers, relu_first, method)
    return y


def norm_backward(
    grad_y: Tensor,
    x: Tensor,
    *,
    size: int,
    scale: float,
    beta: float,
    k: float,
    towers: int,
    relu_first: bool = False,
    method: Method | None = None,
) -> Tensor:
    """The gradient with respect to x, from x alone; arguments as in `norm_forward`, grad_y in any memory format."""
    grad_y = grad_y.to(x.dtype).contiguous(memory_format=torch.channels_last)
    grad_x = torch.empty_like(x)
    tensors = (grad_y, x, grad_x)
    _launch(_backward_banded, _backward_shifted, tensors, size, scale, beta, k, towers, relu_first, method)
    return grad_x


def _launch(
    banded: Any,
    shifted: Any,
    tensors: tuple[Tensor, ...],
    size: int,
    scale: float,
    beta: float,
    k: float,
    towers: int,
    relu_first: bool,
    method: Method | None,
) -> None:
    x = tensors[-2]
    maps = x.shape[1]
    if maps % towers:
        raise ValueError(f"{maps} maps cannot be divided into {towers} towers")
    num_rows = x.numel() // maps if maps else 0
    if num_rows == 0:
        return
    per_tower = maps // towers
    # What backward reads beside the maps it writes: a window of windows, rounded so that tiles begin on 16 bytes.
    halo = 0 if per_tower <= _TILE_MAPS else 8 * divide_up(size - 1, 8)
    if method is None:
        method = "banded" if 2 * halo < _TILE_MAPS else "shifted"
    constants = {"MAPS": maps, "PER_TOWER": per_tower, "SIZE": size, "FAST_POWER": beta == 0.75, "RELU": relu_first}
    with current_device_of(x):
        if method == "banded":
            # A tensor-core product takes no operand narrower than 16.
            block = max(16, min(_TILE_MAPS, next_power_of_2(per_tower)))
            grid = (divide_up(num_rows, _ROWS * _TILES), towers, divide_up(per_tower, block - 2 * halo))
            # The interpreter multiplies the bits of bfloat16 numbers as if they were integers.
            operand = tl.float32 if INTERPRETING else tl.bfloat16
            banded[grid](
                *tensors, num_rows, scale, beta, k, **constants,
                ROWS=_ROWS, TILES=_TILES, BLOCK=block, HALO=halo, PARTS=_PARTS[x.dtype], OPERAND=operand,
                num_warps=4, enable_fp_fusion=True,
            )  # fmt: skip
        else:
            block = min(128, next_power_of_2(per_tower))
            rows = 2048 // block
            grid = (divide_up(num_rows, rows), towers, divide_up(per_tower, block))
            shifted[grid](
                *tensors, num_rows, scale, beta, k, **constants, ROWS=rows, BLOCK=block,
                num_warps=4, enable_fp_fusion=True,
            )  # fmt: skip


@jit
def _load(pointer, offsets, mask, RELU: constexpr):
    """Values as float32, zero where masked; with RELU their positive part (of NaN, NaN)."""
    values = tl.load(pointer + offsets, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        values = tl.where(values < 0.0, 0.0, values)
    return values


@jit
def _power(denominators, beta, FAST_POWER: constexpr):
    """denominators ** -beta, for beta = 0.75 from two square roots."""
    if FAST_POWER:
        root = 1.0 / tl.sqrt(denominators)
        return root * tl.sqrt(root)
    else:
        return tl.exp2(-beta * tl.log2(denominators))


@jit
def _band(BLOCK: constexpr, SIZE: constexpr, MIRRORED: constexpr, OPERAND: constexpr):
    """(BLOCK, BLOCK) ones where the row's map is in the window of the column's; mirrored, the other way round."""
    source = tl.arange(0, BLOCK)[:, None]
    target = tl.arange(0, BLOCK)[None, :]
    distance = source - target
    if MIRRORED:
        distance = -distance
    inside = (distance >= -(SIZE // 2)) & (distance < SIZE - SIZE // 2)
    return tl.where(inside, 1.0, 0.0).to(OPERAND)


@jit
def _window_sums(values, band, PARTS: constexpr):
    """values @ band, with the values split into PARTS bfloat16 numbers."""
    part = values.to(tl.bfloat16)
    sums = tl.dot(part.to(band.dtype), band)
    for _ in tl.static_range(1, PARTS):
        values = values - part.to(tl.float32)
        part = values.to(tl.bfloat16)
        sums = tl.dot(part.to(band.dtype), band, acc=sums)
    return sums


@jit
def _banded_tile(tile, num_rows, MAPS, PER_TOWER, ROWS, TILES, BLOCK, HALO):
    """Of a program's tile: the offset of its first row, then 32-bit offsets from there, what to read, what to write."""
    first_row = (tl.program_id(0) * TILES + tile).to(tl.int64) * ROWS
    rows = tl.arange(0, ROWS)[:, None]
    # HALO maps on either side of the ones written are read for the sake of their neighbours' windows.
    local = tl.arange(0, BLOCK)[None, :]
    maps = tl.program_id(2) * (BLOCK - 2 * HALO) - HALO + local
    mask = (rows < num_rows - first_row) & (maps >= 0) & (maps < PER_TOWER)
    offsets = rows * MAPS + maps + tl.program_id(1) * PER_TOWER
    return first_row * MAPS, offsets, mask, mask & (local >= HALO) & (local < BLOCK - HALO)


@jit
def _forward_banded(
    x_pointer, y_pointer, num_rows, scale, beta, k,
    MAPS: constexpr, PER_TOWER: constexpr, SIZE: constexpr, FAST_POWER: constexpr, RELU: constexpr,
    ROWS: constexpr, TILES: constexpr, BLOCK: constexpr, HALO: constexpr, PARTS: constexpr,
    OPERAND: constexpr,
):  # fmt: skip
    band = _band(BLOCK, SIZE, False, OPERAND)
    for tile in range(TILES):
        first, offsets, mask, written = _banded_tile(tile, num_rows, MAPS, PER_TOWER, ROWS, TILES, BLOCK, HALO)
        x = _load(x_pointer + first, offsets, mask, RELU)
        denominators = k + scale * _window_sums(x * x, band, PARTS)
        y = x * _power(denominators, beta, FAST_POWER)
        tl.store(y_pointer + first + offsets, y.to(y_pointer.dtype.element_ty), mask=written)


@jit
def _backward_banded(
    g_pointer, x_pointer, gx_pointer, num_rows, scale, beta, k,
    MAPS: constexpr, PER_TOWER: constexpr, SIZE: constexpr, FAST_POWER: constexpr, RELU: constexpr,
    ROWS: constexpr, TILES: constexpr, BLOCK: constexpr, HALO: constexpr, PARTS: constexpr,
    OPERAND: constexpr,
):  # fmt: skip
    # With d the denominators: grad_x = g * d**-beta - 2 * a * beta * x * window_sum(g * x * d**(-beta - 1)).
    band = _band(BLOCK, SIZE, False, OPERAND)
    # A window of an odd size is its own mirror image.
    mirrored = band if SIZE % 2 else _band(BLOCK, SIZE, True, OPERAND)
    for tile in range(TILES):
        first, offsets, mask, written = _banded_tile(tile, num_rows, MAPS, PER_TOWER, ROWS, TILES, BLOCK, HALO)
        x = _load(x_pointer + first, offsets, mask, RELU)
        denominators = k + scale * _window_sums(x * x, band, PARTS)
        direct = _load(g_pointer + first, offsets, mask, False) * _power(denominators, beta, FAST_POWER)
        through = _window_sums(direct * x / denominators, mirrored, PARTS)
        grad_x = direct - 2.0 * scale * beta * x * through
        if RELU:
            grad_x = tl.where(x <= 0.0, 0.0, grad_x)
        tl.store(gx_pointer + first + offsets, grad_x.to(gx_pointer.dtype.element_ty), mask=written)


@jit
def _shifted_denominators(
    x_pointer, row_offsets, row_mask, maps, scale, k,
    PER_TOWER: constexpr, SIZE: constexpr, RELU: constexpr,
):  # fmt: skip
    """k + scale * the sums of squares over the windows of `maps`, which may lie outside the tower."""
    sums = tl.zeros_like((row_offsets + maps).to(tl.float32))
    for shift in tl.static_range(SIZE):
        neighbour = maps + shift - SIZE // 2
        x = _load(x_pointer, row_offsets + neighbour, row_mask & (neighbour >= 0) & (neighbour < PER_TOWER), RELU)
        sums += x * x
    return k + scale * sums


@jit
def _forward_shifted(
    x_pointer, y_pointer, num_rows, scale, beta, k,
    MAPS: constexpr, PER_TOWER: constexpr, SIZE: constexpr, FAST_POWER: constexpr, RELU: constexpr,
    ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    maps = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)[None, :]
    row_offsets = rows * MAPS + tl.program_id(1) * PER_TOWER
    mask = (rows < num_rows) & (maps < PER_TOWER)
    denominators = _shifted_denominators(x_pointer, row_offsets, rows < num_rows, maps, scale, k, PER_TOWER, SIZE, RELU)
    y = _load(x_pointer, row_offsets + maps, mask, RELU) * _power(denominators, beta, FAST_POWER)
    tl.store(y_pointer + row_offsets + maps, y.to(y_pointer.dtype.element_ty), mask=mask)


@jit
def _backward_shifted(
    g_pointer, x_pointer, gx_pointer, num_rows, scale, beta, k,
    MAPS: constexpr, PER_TOWER: constexpr, SIZE: constexpr, FAST_POWER: constexpr, RELU: constexpr,
    ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    maps = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)[None, :]
    row_offsets = rows * MAPS + tl.program_id(1) * PER_TOWER
    row_mask = rows < num_rows
    mask = row_mask & (maps < PER_TOWER)
    through = tl.zeros((ROWS, BLOCK), tl.float32)
    for shift in tl.static_range(SIZE):
        # The maps whose windows hold this one: the window mirrored.
        other = maps + shift - (SIZE - 1 - SIZE // 2)
        inside = row_mask & (other >= 0) & (other < PER_TOWER)
        d = _shifted_denominators(x_pointer, row_offsets, row_mask, other, scale, k, PER_TOWER, SIZE, RELU)
        g = _load(g_pointer, row_offsets + other, inside, False)
        through += g * _load(x_pointer, row_offsets + other, inside, RELU) * _power(d, beta, FAST_POWER) / d
    d = _shifted_denominators(x_pointer, row_offsets, row_mask, maps, scale, k, PER_TOWER, SIZE, RELU)
    x = _load(x_pointer, row_offsets + maps, mask, RELU)
    grad_x = _load(g_pointer, row_offsets + maps, mask, False) * _power(d, beta, FAST_POWER)
    grad_x -= 2.0 * scale * beta * x * through
    if RELU:
        grad_x = tl.where(x <= 0.0, 0.0, grad_x)
    tl.store(gx_pointer + row_offsets + maps, grad_x.to(gx_pointer.dtype.element_ty), mask=mask)

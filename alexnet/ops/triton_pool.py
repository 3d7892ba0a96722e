"""Max pooling as Triton kernels, for channels-last tensors, with one byte to remember where each maximum was.

torch keeps an int64 index for every output, 8 bytes beside the 2 of a bfloat16 maximum. Here it is the place within the
window, and backward gathers: each input looks at the few windows that hold it, so that nothing is added atomically and
the sums are the same every time. An optional ReLU after the pool costs nothing: where the maximum is not positive, the
byte says that no gradient passes. (A ReLU before the pool is the same thing: max and ReLU commute.)

Windows are those of torch without padding; with ceil_mode the last ones reach over the edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alexnet.ops.triton_runtime import can_run, constexpr, current_device_of, divide_up, jit, next_power_of_2, tl

NO_GRADIENT = 255
"""In place of a place in the window."""

_MAX_TILE_MAPS = 64
_TILE = 2048


def supports(x: Tensor, size: int) -> bool:
    """Whether the kernels take this tensor and window: floating point, channels-last, on a device with Triton."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and size * size < NO_GRADIENT
        and can_run(x.device)
    )


def pooled_extent(extent: int, size: int, stride: int, ceil_mode: bool) -> int:
    """Windows along one direction, as torch counts them: each begins inside the map."""
    if not ceil_mode:
        return (extent - size) // stride + 1
    number = divide_up(extent - size, stride) + 1
    return number - 1 if (number - 1) * stride >= extent else number


def pool_forward(
    x: Tensor, *, size: int, stride: int, ceil_mode: bool = False, relu_after: bool = False
) -> tuple[Tensor, Tensor]:
    """(maxima, places): (N, C, H', W') in x's dtype, and the same in uint8, both channels-last.

    A place is row * size + column within the window, or NO_GRADIENT. Ties go to the first, NaN to the last NaN, as in
    torch.
    """
    batch, maps, height, width = x.shape
    shape = (batch, maps, *(pooled_extent(extent, size, stride, ceil_mode) for extent in (height, width)))
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    places = torch.empty(shape, dtype=torch.uint8, device=x.device, memory_format=torch.channels_last)
    if y.numel() == 0:
        return y, places
    block = min(_MAX_TILE_MAPS, next_power_of_2(maps))
    positions = batch * shape[2] * shape[3]
    with current_device_of(x):
        _forward[(divide_up(positions, _TILE // block), divide_up(maps, block))](
            x, y, places, positions, MAPS=maps, HEIGHT=height, WIDTH=width, OUT_HEIGHT=shape[2], OUT_WIDTH=shape[3],
            SIZE=size, STRIDE=stride, RELU=relu_after, ROWS=_TILE // block, BLOCK=block,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return y, places


def pool_backward(grad_y: Tensor, places: Tensor, *, input_size: tuple[int, int], size: int, stride: int) -> Tensor:
    """The gradient with respect to x, whose height and width were input_size; grad_y in any memory format."""
    batch, maps, out_height, out_width = places.shape
    grad_y = grad_y.contiguous(memory_format=torch.channels_last)
    shape = (batch, maps, *input_size)
    grad_x = torch.empty(shape, dtype=grad_y.dtype, device=grad_y.device, memory_format=torch.channels_last)
    if grad_x.numel() == 0:
        return grad_x
    block = min(_MAX_TILE_MAPS, next_power_of_2(maps))
    positions = batch * input_size[0] * input_size[1]
    with current_device_of(grad_y):
        _backward[(divide_up(positions, _TILE // block), divide_up(maps, block))](
            grad_y, places, grad_x, positions, MAPS=maps, HEIGHT=input_size[0], WIDTH=input_size[1],
            OUT_HEIGHT=out_height, OUT_WIDTH=out_width, SIZE=size, STRIDE=stride, OVERLAP=divide_up(size, stride),
            NONE=NO_GRADIENT, ROWS=_TILE // block, BLOCK=block,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return grad_x


@jit
def _forward(
    x_pointer, y_pointer, places_pointer, positions,
    MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, OUT_HEIGHT: constexpr, OUT_WIDTH: constexpr,
    SIZE: constexpr, STRIDE: constexpr, RELU: constexpr, ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    maps = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (position < positions) & (maps < MAPS)
    image = position // (OUT_HEIGHT * OUT_WIDTH)
    top = position // OUT_WIDTH % OUT_HEIGHT * STRIDE
    left = position % OUT_WIDTH * STRIDE
    base = ((image.to(tl.int64) * HEIGHT + top) * WIDTH + left) * MAPS + maps
    best = tl.full((ROWS, BLOCK), float("-inf"), tl.float32)
    place = tl.zeros((ROWS, BLOCK), tl.int32)
    for row in tl.static_range(SIZE):
        for column in tl.static_range(SIZE):
            inside = mask & (top + row < HEIGHT) & (left + column < WIDTH)
            offset = (row * WIDTH + column) * MAPS
            x = tl.load(x_pointer + base + offset, mask=inside, other=float("-inf")).to(tl.float32)
            better = (x > best) | (x != x)
            best = tl.where(better, x, best)
            place = tl.where(better, row * SIZE + column, place)
    if RELU:
        place = tl.where(best <= 0.0, 255, place)
        best = tl.where(best < 0.0, 0.0, best)
    target = position.to(tl.int64) * MAPS + maps
    tl.store(y_pointer + target, best.to(y_pointer.dtype.element_ty), mask=mask)
    tl.store(places_pointer + target, place.to(tl.uint8), mask=mask)


@jit
def _backward(
    gy_pointer, places_pointer, gx_pointer, positions,
    MAPS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, OUT_HEIGHT: constexpr, OUT_WIDTH: constexpr,
    SIZE: constexpr, STRIDE: constexpr, OVERLAP: constexpr, NONE: constexpr, ROWS: constexpr, BLOCK: constexpr,
):  # fmt: skip
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    maps = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (position < positions) & (maps < MAPS)
    image = position // (HEIGHT * WIDTH)
    row = position // WIDTH % HEIGHT
    column = position % WIDTH
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for up in tl.static_range(OVERLAP):
        for before in tl.static_range(OVERLAP):
            # The windows that may hold this position: the last that begins at or before it, and those before that.
            out_row = row // STRIDE - up
            out_column = column // STRIDE - before
            row_in_window = row - out_row * STRIDE
            column_in_window = column - out_column * STRIDE
            exists = (out_row >= 0) & (out_row < OUT_HEIGHT) & (out_column >= 0) & (out_column < OUT_WIDTH)
            holds = mask & exists & (row_in_window < SIZE) & (column_in_window < SIZE)
            source = ((image.to(tl.int64) * OUT_HEIGHT + out_row) * OUT_WIDTH + out_column) * MAPS + maps
            place = tl.load(places_pointer + source, mask=holds, other=NONE).to(tl.int32)
            gradient = tl.load(gy_pointer + source, mask=holds, other=0.0).to(tl.float32)
            total += tl.where(place == row_in_window * SIZE + column_in_window, gradient, 0.0)
    target = position.to(tl.int64) * MAPS + maps
    tl.store(gx_pointer + target, total.to(gx_pointer.dtype.element_ty), mask=mask)

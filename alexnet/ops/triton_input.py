"""Network inputs from stored bytes in one kernel: crop, reflect, add the colour shift, subtract the mean, divide, cast.

The numbers are those of `Preprocessing.normalize`. The kernel takes either finished crops or whole squares, which it
crops and reflects itself, so that no thread of the host has to; and it can write the blocks of conv1's space-to-depth
form, with their zero padding, in place of plain images.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.ops.triton_runtime import can_run, constexpr, current_device_of, divide_up, jit, tl

_BLOCK = 1024


class InputRule(Protocol):
    """The fields of `alexnet.data.preprocessing.Preprocessing` that decide what a pixel becomes."""

    @property
    def image_size(self) -> int: ...
    @property
    def crop_size(self) -> int: ...
    @property
    def input_scale(self) -> str: ...
    @property
    def channel_order(self) -> str: ...
    @property
    def mean_mode(self) -> str: ...
    @property
    def mean_image(self) -> Tensor: ...
    @property
    def channel_mean(self) -> tuple[float, float, float]: ...
    @property
    def channel_std(self) -> tuple[float, float, float]: ...


class InputMaker:
    """Makes network inputs by one rule on one device; its constants are copied there once."""

    def __init__(self, rule: InputRule, device: torch.device) -> None:
        self.rule = rule
        self.device = device
        self.subtracts_pixels = rule.input_scale == "pixels" and rule.mean_mode != "channel"
        if rule.input_scale == "unit":
            mean, std = torch.tensor(rule.channel_mean), torch.tensor(rule.channel_std)
            self.mean, self.divisors = (255 * mean).to(device), (255 * std).to(device)
        else:
            mean = rule.mean_image if self.subtracts_pixels else rule.mean_image.mean(dim=(0, 1))
            self.mean, self.divisors = mean.float().contiguous().to(device), None

    def __call__(
        self,
        pixels: Tensor,
        *,
        dtype: torch.dtype,
        form: Literal["crops", "squares"] = "crops",
        offsets: Tensor | None = None,
        flips: Tensor | None = None,
        color_shift: Tensor | None = None,
        divisor: float | Tensor = 1.0,
        block: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """(N, 3, h, w) in `dtype`, channels-last.

        pixels: (N, s, s, 3) uint8 RGB on the device: crops (s = rule.crop_size), already reflected where `flips` says
        so; or squares (s = rule.image_size), which are cropped at `offsets` (None: in the centre) and reflected here.
        offsets: (N, 2) int64; flips: (N,) bool; color_shift: (N, 3) float32; divisor: a number or a float32 element on
        the device; it is ignored for input_scale "unit". block, padding: in place of images, their blocks
        (N, 3 * block**2, H, W) in the layout of F.pixel_unshuffle, with `padding` zero pixels (before, after) in both
        directions.
        """
        size = self.rule.crop_size
        expected = self.rule.image_size if form == "squares" else size
        if pixels.shape[1:] != (expected, expected, 3):
            raise ValueError(f"{form} are bytes (N, {expected}, {expected}, 3), not {tuple(pixels.shape)}")
        if (size + sum(padding)) % block:
            raise ValueError(f"{size} pixels and padding {padding} cannot be divided into blocks of {block}")
        make = self._launch if can_run(pixels.device) and pixels.is_contiguous() else self._reference
        return make(pixels, form == "squares", offsets, flips, color_shift, divisor, dtype, block, padding)

    def _launch(
        self,
        pixels: Tensor,
        is_square: bool,
        offsets: Tensor | None,
        flips: Tensor | None,
        color_shift: Tensor | None,
        divisor: float | Tensor,
        dtype: torch.dtype,
        block: int,
        padding: tuple[int, int],
    ) -> Tensor:
        size, side = self.rule.crop_size, self.rule.image_size
        extent = (size + sum(padding)) // block
        shape = (len(pixels), 3 * block**2, extent, extent)
        images = torch.empty(shape, dtype=dtype, device=pixels.device, memory_format=torch.channels_last)
        # The mean's own crop: at the image's, or in the middle.
        at_crop = self.rule.mean_mode == "at_crop"
        grid = (divide_up(shape[1] * extent**2, _BLOCK), len(pixels))
        with current_device_of(pixels):
            _make_inputs[grid](
                images, pixels, self.mean,
                self.mean if self.divisors is None else self.divisors,
                pixels if offsets is None else offsets.contiguous(),
                pixels if flips is None else flips.contiguous().view(torch.uint8),
                self.mean if color_shift is None else color_shift.contiguous(),
                divisor,
                SIZE=size, SOURCE=side if is_square else size, SIDE=side, CENTER=(side - size) // 2,
                IS_SQUARE=is_square, HAS_OFFSETS=offsets is not None, HAS_FLIPS=flips is not None,
                HAS_SHIFT=color_shift is not None, MEAN_PIXELS=self.subtracts_pixels,
                MEAN_AT_CROP=at_crop and offsets is not None, MEAN_FLIPS=at_crop and flips is not None,
                UNIT=self.divisors is not None, DIVISOR_ON_DEVICE=isinstance(divisor, Tensor),
                DIVIDE=not (isinstance(divisor, float) and divisor == 1.0), BGR=self.rule.channel_order == "bgr",
                BLOCK_SIDE=block, BEFORE=padding[0], EXTENT=extent, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False,
            )  # fmt: skip
        return images

    def _reference(
        self,
        pixels: Tensor,
        is_square: bool,
        offsets: Tensor | None,
        flips: Tensor | None,
        color_shift: Tensor | None,
        divisor: float | Tensor,
        dtype: torch.dtype,
        block: int,
        padding: tuple[int, int],
    ) -> Tensor:
        """The same in torch's operations, waiting for nothing."""
        size, side = self.rule.crop_size, self.rule.image_size
        center = torch.full((len(pixels), 2), (side - size) // 2, device=pixels.device)
        crops = self._cropped(pixels, center if offsets is None else offsets, flips) if is_square else pixels
        images = crops.to(torch.float32)
        if color_shift is not None:
            images = images + color_shift[:, None, None, :]
        mean = self.mean
        if self.subtracts_pixels:
            at_crop = self.rule.mean_mode == "at_crop"
            places = offsets if at_crop and offsets is not None else center
            mean = self._cropped(mean.expand(len(pixels), -1, -1, -1), places, flips if at_crop else None)
        images = images - mean
        if self.divisors is not None:
            images = images / self.divisors
        elif isinstance(divisor, Tensor) or divisor != 1.0:
            images = images / divisor
        if self.rule.channel_order == "bgr":
            images = images.flip(-1)
        images = images.to(dtype).permute(0, 3, 1, 2)
        if block > 1 or any(padding):
            images = F.pixel_unshuffle(F.pad(images, (padding[0], padding[1]) * 2), block)
        return images.contiguous(memory_format=torch.channels_last)

    def _cropped(self, squares: Tensor, offsets: Tensor, flips: Tensor | None) -> Tensor:
        steps = torch.arange(self.rule.crop_size, device=squares.device)
        rows = offsets[:, 0, None] + steps  # (N, h)
        columns = offsets[:, 1, None] + steps
        if flips is not None:
            columns = torch.where(flips[:, None], columns.flip(1), columns)
        images = torch.arange(len(squares), device=squares.device)
        return squares[images[:, None, None], rows[:, :, None], columns[:, None, :]]


@jit
def _make_inputs(
    images_pointer, pixels_pointer, mean_pointer, divisors_pointer, offsets_pointer, flips_pointer, shift_pointer,
    divisor,
    SIZE: constexpr, SOURCE: constexpr, SIDE: constexpr, CENTER: constexpr,
    IS_SQUARE: constexpr, HAS_OFFSETS: constexpr, HAS_FLIPS: constexpr,
    HAS_SHIFT: constexpr, MEAN_PIXELS: constexpr,
    MEAN_AT_CROP: constexpr, MEAN_FLIPS: constexpr,
    UNIT: constexpr, DIVISOR_ON_DEVICE: constexpr, DIVIDE: constexpr, BGR: constexpr,
    BLOCK_SIDE: constexpr, BEFORE: constexpr, EXTENT: constexpr, BLOCK: constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    # Elements in the order in which they are written: row, column, then channel, and within a channel the block.
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    CHANNELS: constexpr = 3 * BLOCK_SIDE * BLOCK_SIDE
    inside = element < CHANNELS * EXTENT * EXTENT
    position = element // CHANNELS
    feature = element % CHANNELS
    channel = feature // (BLOCK_SIDE * BLOCK_SIDE)
    row = position // EXTENT * BLOCK_SIDE + feature // BLOCK_SIDE % BLOCK_SIDE - BEFORE
    column = position % EXTENT * BLOCK_SIDE + feature % BLOCK_SIDE - BEFORE
    mask = inside & (row >= 0) & (row < SIZE) & (column >= 0) & (column < SIZE)
    if BGR:
        channel = 2 - channel
    top = CENTER
    left = CENTER
    if HAS_OFFSETS:
        top = tl.load(offsets_pointer + image * 2).to(tl.int32)
        left = tl.load(offsets_pointer + image * 2 + 1).to(tl.int32)
    reflected = column
    if HAS_FLIPS:
        reflected = tl.where(tl.load(flips_pointer + image) != 0, SIZE - 1 - column, column)
    if IS_SQUARE:
        source = ((top + row) * SOURCE + left + reflected) * 3 + channel
    else:
        source = (row * SOURCE + column) * 3 + channel
    value = tl.load(pixels_pointer + image * (SOURCE * SOURCE * 3) + source, mask=mask, other=0).to(tl.float32)
    if HAS_SHIFT:
        value += tl.load(shift_pointer + image * 3 + channel, mask=mask, other=0.0)
    if MEAN_PIXELS:
        # The mean belongs to the square: with "at_crop" it is cropped, and reflected, with the image.
        mean_row = row + (top if MEAN_AT_CROP else CENTER)
        mean_column = (reflected if MEAN_FLIPS else column) + (left if MEAN_AT_CROP else CENTER)
        value -= tl.load(mean_pointer + (mean_row * SIDE + mean_column) * 3 + channel, mask=mask, other=0.0)
    else:
        value -= tl.load(mean_pointer + channel, mask=mask, other=0.0)
    if UNIT:
        value = tl.div_rn(value, tl.load(divisors_pointer + channel, mask=mask, other=1.0))
    elif DIVIDE:
        if DIVISOR_ON_DEVICE:
            divisor = tl.load(divisor)
        value = tl.div_rn(value, divisor)
    value = tl.where(mask, value, 0.0)
    target = images_pointer + image * (CHANNELS * EXTENT * EXTENT) + element
    tl.store(target, value.to(images_pointer.dtype.element_ty), mask=inside)

"""From pixels to what the network sees: the part that evaluation, prediction and exports share with training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from alexnet.ops import native

MeanMode = Literal["center_crop", "at_crop", "channel"]


@dataclass(frozen=True)
class Preprocessing:
    """How squares of pixels become network inputs; carried by every checkpoint.

    input_scale "pixels" (all nets of 2012): 0-255 minus the mean. "unit": (pixel / 255 - channel_mean) / channel_std.
    """

    image_size: int
    """Side of the stored squares (256)."""
    crop_size: int
    """Side of the network's input (224)."""
    input_scale: Literal["pixels", "unit"]
    channel_order: Literal["rgb", "bgr"]
    mean_mode: MeanMode
    mean_image: torch.Tensor
    """(image_size, image_size, 3) float32 RGB, 0-255: each pixel's mean over the training set (paper 2)."""
    channel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    channel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """For "unit": the constants that torchvision's weights were trained with (its weight documentation)."""

    def normalize(
        self,
        crops: torch.Tensor,
        offsets: torch.Tensor | None = None,
        flips: torch.Tensor | None = None,
        color_shift: torch.Tensor | None = None,
        divisor: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Network inputs from crops.

        crops: (N, h, w, 3) uint8 RGB, already reflected where `flips` says so; offsets: (N, 2) int64, top and left of
        each crop in its square, None = the centre; flips: (N,) bool; color_shift: (N, 3) float32 RGB added to every
        pixel (paper 4.1); divisor: the 2012 code's 1.1. Returns (N, 3, h, w) in `dtype`, channels-last.
        """
        on_bytes = crops.device.type == "cpu" and crops.dtype == torch.uint8
        if on_bytes and native.AVAILABLE and dtype in (torch.float32, torch.bfloat16):
            return self._normalize_in_one_pass(crops, offsets, flips, color_shift, divisor, dtype)
        images = crops.to(torch.float32)
        if color_shift is not None:
            images = images + color_shift[:, None, None, :]
        if self.input_scale == "pixels":
            images = images - self._mean_crops(crops, offsets, flips)
            if divisor != 1.0:
                images = images / divisor
        else:
            mean = torch.tensor(self.channel_mean, device=crops.device)
            std = torch.tensor(self.channel_std, device=crops.device)
            images = (images - 255 * mean) / (255 * std)
        if self.channel_order == "bgr":
            images = images.flip(-1)
        return images.to(dtype).permute(0, 3, 1, 2)  # NHWC in memory: channels-last

    def _normalize_in_one_pass(
        self,
        crops: torch.Tensor,
        offsets: torch.Tensor | None,
        flips: torch.Tensor | None,
        color_shift: torch.Tensor | None,
        divisor: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """`normalize` by the kernel that reads and writes each pixel once."""
        height, width = crops.shape[1:3]
        mean, scale = self.mean_image, [1 / divisor] * 3
        at = ((self.image_size - height) // 2, (self.image_size - width) // 2)
        if self.input_scale == "unit" or self.mean_mode == "channel":
            channels = mean.mean(dim=(0, 1))
            if self.input_scale == "unit":
                channels = 255 * torch.tensor(self.channel_mean)
                scale = [1 / (255 * std) for std in self.channel_std]
            mean, at = channels.expand(height, width, 3), (0, 0)
        at_crop = self.input_scale == "pixels" and self.mean_mode == "at_crop"
        if not at_crop or offsets is None:
            offsets = torch.tensor([at] * len(crops), dtype=torch.int64)
        bgr = self.channel_order == "bgr"
        return native.images(crops, color_shift, mean, offsets, flips if at_crop else None, scale, dtype, bgr=bgr)

    def _mean_crops(
        self, crops: torch.Tensor, offsets: torch.Tensor | None, flips: torch.Tensor | None
    ) -> torch.Tensor:
        """What is subtracted: (3,), (1, h, w, 3) or (N, h, w, 3)."""
        mean = self.mean_image.to(crops.device)
        if self.mean_mode == "channel":
            return mean.mean(dim=(0, 1))
        height, width = crops.shape[1:3]
        center = (self.image_size - height) // 2, (self.image_size - width) // 2
        if self.mean_mode == "center_crop" or offsets is None:
            # S convdata_jpeg.py:95,210: the mean's centre crop, whatever the image's crop and reflection.
            top, left = center
            mean = mean[None, top : top + height, left : left + width]
            if self.mean_mode == "at_crop" and flips is not None:
                return torch.where(flips[:, None, None, None], mean.flip(2), mean)
            return mean
        # The mean belongs to the square: it is cropped, and reflected, with the image.
        rows = offsets[:, 0, None] + torch.arange(height, device=crops.device)
        columns = offsets[:, 1, None] + torch.arange(width, device=crops.device)
        means = mean[rows[:, :, None], columns[:, None, :]]
        return torch.where(flips[:, None, None, None], means.flip(2), means) if flips is not None else means

    def to_dict(self) -> dict[str, Any]:
        """Plain types and one tensor."""
        return {field: getattr(self, field) for field in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The inverse of to_dict. Raises KeyError, TypeError or ValueError for what it cannot be."""
        values = dict(fields)
        values["channel_mean"] = tuple(values["channel_mean"])
        values["channel_std"] = tuple(values["channel_std"])
        known = {
            "input_scale": ("pixels", "unit"),
            "channel_order": ("rgb", "bgr"),
            "mean_mode": get_args(MeanMode),
        }
        for name, choices in known.items():
            if values[name] not in choices:
                raise ValueError(f"{name} is {str(values[name])[:40]!r}")
        size, crop, mean = values["image_size"], values["crop_size"], values["mean_image"]
        # The kernel in `ops.native` reads the mean at the places that the sizes say.
        if not 0 < crop <= size or tuple(mean.shape) != (size, size, 3) or mean.dtype != torch.float32:
            what = f"a mean of {tuple(mean.shape)} ({mean.dtype})"
            raise ValueError(f"crops of {crop} px from squares of {size} with {what}")
        return cls(**values)

"""Weights stored in fewer bytes, and unpacked to float32 where they are used: the arithmetic stays that of float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from alexnet.errors import UserError
from alexnet.exporting.formats import Weights
from alexnet.models import AlexNet
from alexnet.models.layers import GroupedLinear, Local
from alexnet.training.checkpoint import Checkpoint, build_model

_LARGEST = 127


class HalfPrecision(nn.Module):
    """A weight kept in float16."""

    def forward(self, half: Tensor) -> Tensor:
        """The weight in float32."""
        return half.to(torch.float32)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor]:
        """What is kept: the nearest values of float16."""
        return (weight.to(torch.float16),)  # torch allows another dtype in a tuple only


class Int8Rows(nn.Module):
    """A weight kept in int8 with one float32 scale for every output: symmetric, so that zero stays zero."""

    def forward(self, rows: Tensor, scales: Tensor) -> Tensor:
        """The weight in float32: rows (..., outputs, inputs) times scales (..., outputs, 1)."""
        return rows.to(torch.float32) * scales

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept: the nearest multiples of a 127th of the largest weight of each output, and that 127th."""
        scales = weight.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST
        return (weight / scales).round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scales


def packed_model(checkpoint: Checkpoint, weights: Weights) -> AlexNet:
    """The network of a checkpoint with the weights that a file with `weights` holds; in evaluation, without gradients.

    float16: all weights but biases and norms. int8: those of fully-connected and local layers, which hold nearly all of
    the bytes (96 % in as_run); convolutions stay float32. Raises UserError where float16 cannot hold a weight.
    """
    model = build_model(checkpoint).requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # training leaves kernels channels-last; files have one order
    for name, layer in model.named_children():
        if weights == "float16" and isinstance(layer, nn.Conv2d | nn.Linear | GroupedLinear | Local):
            parametrize.register_parametrization(layer, "weight", HalfPrecision(), unsafe=True)
            if not bool(layer.weight.isfinite().all()):
                raise UserError(f"a weight of {name} is beyond the range of float16 (65,504); take float32 or int8")
        elif weights == "int8" and isinstance(layer, nn.Linear | GroupedLinear | Local):
            parametrize.register_parametrization(layer, "weight", Int8Rows(), unsafe=True)
    return model

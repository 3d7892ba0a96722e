"""The layers that torch lacks, and torch's with the 2012 conventions. All compute in the dtype of their input."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn, zeros
from torch.nn import functional as F

from alexnet.models import architecture as records
from alexnet.models.architecture import LayerShapes
from alexnet.models.exchange import Exchange
from alexnet.ops.response_norm import response_norm, spatial_norm
from alexnet.ops.space_to_depth import conv2d_by_space_to_depth
from alexnet.ops.working_copy import in_dtype


class Convolution(nn.Conv2d):
    """A convolution whose float32 weights are cast to the dtype of its input."""

    form: Literal["direct", "space_to_depth"] = "direct"
    """space_to_depth: the same sums as an unstrided convolution over blocks of pixels."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H', W')."""
        weight = self.weight.to(input.dtype)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        if self.form == "space_to_depth":
            return conv2d_by_space_to_depth(input, weight, bias, self.stride[0], int(self.padding[0]))
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Linear(nn.Linear):
    """A fully-connected layer whose float32 weights are cast to the dtype of its input; it flattens maps itself.

    With groups, each part of the outputs sees its own part of the inputs: weight is (features, inputs / groups).
    """

    def __init__(self, num_inputs: int, features: int, groups: int = 1) -> None:
        super().__init__(num_inputs // groups, features)
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        """(N, ...) -> (N, features). Maps are flattened in the order channel, row, column."""
        inputs, weight, bias = input.flatten(1), in_dtype(self.weight, input.dtype), self.bias.to(input.dtype)
        if self.groups == 1:
            return F.linear(inputs, weight, bias)
        parts = zip(inputs.chunk(self.groups, 1), weight.chunk(self.groups), bias.chunk(self.groups), strict=True)
        return torch.cat([F.linear(*part) for part in parts], dim=1)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", groups={self.groups}" if self.groups > 1 else "")


class Local(nn.Module):
    """A convolution with weights and biases of its own at every position (S: type=local), stride 1.

    weight: (positions, channels, in_channels * kernel**2), bias: (positions, channels); positions go row by row.
    """

    def __init__(self, inputs: records.Shape, outputs: records.Shape, kernel: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.padding = kernel, padding
        self.outputs = outputs
        channels, height, width = outputs
        self.weight = nn.Parameter(zeros(height * width, channels, inputs[0] * kernel**2))
        self.bias = nn.Parameter(zeros(height * width, channels))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H', W')."""
        # Positions first and maps last, so that a window is put together from a few long pieces, one for each of its
        # places, and its gradient taken apart the same way.
        kernel, (_, height, width) = self.kernel, self.outputs
        padded = F.pad(input.permute(2, 3, 0, 1), (0, 0, 0, 0, *(self.padding,) * 4))  # (H, W, N, C)
        places = [(row, column) for row in range(kernel) for column in range(kernel)]
        windows = torch.cat([padded[row : row + height, column : column + width] for row, column in places], dim=3)
        weight = self.weight.to(input.dtype).unflatten(2, (-1, kernel**2)).transpose(2, 3).flatten(2)
        # One matrix product per position: (positions, N, k * k * C) x (positions, k * k * C, channels).
        outputs = windows.flatten(0, 1).bmm(weight.transpose(1, 2)) + self.bias.to(input.dtype).unsqueeze(1)
        return outputs.permute(1, 2, 0).unflatten(2, self.outputs[1:])


class AveragePool(nn.AvgPool2d):
    """Average pooling over square windows; `divisor_override` is size**2 for `PoolDivisor` "window", else None."""

    def __init__(self, record: records.AveragePool) -> None:
        # Without padding torch divides by the part of the window that is inside the map.
        divisor = record.size**2 if record.divisor == "window" else None
        super().__init__(record.size, record.stride, ceil_mode=record.ceil_mode, divisor_override=divisor)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        if self.divisor_override is None or not torch.compiler.is_exporting():
            return super().forward(input)
        # torch's exporter to ONNX ignores divisor_override: fill the last windows with zeros instead.
        size, stride = int(self.kernel_size), int(self.stride)
        sides = [records.pooled_side(side, size, stride, self.ceil_mode) for side in input.shape[2:]]
        fill = [max(0, (count - 1) * stride + size - side) for count, side in zip(sides, input.shape[2:], strict=True)]
        means = F.avg_pool2d(F.pad(input, (0, fill[1], 0, fill[0])), size, stride)
        return means * (size**2 / self.divisor_override) if self.divisor_override != size**2 else means


class ResponseNorm(nn.Module):
    """Local response normalisation across maps (paper 3.3)."""

    def __init__(self, record: records.ResponseNorm) -> None:
        super().__init__()
        self.record = record

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        r = self.record
        return response_norm(input, r.size, r.alpha, r.beta, r.k, alpha_convention=r.alpha_convention, towers=r.towers)

    def extra_repr(self) -> str:
        return str(self.record)


class SpatialNorm(nn.Module):
    """Local response normalisation within each map (S: type=rnorm)."""

    def __init__(self, record: records.SpatialNorm) -> None:
        super().__init__()
        self.record = record

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        r = self.record
        return spatial_norm(input, r.size, r.alpha, r.beta, r.k, alpha_convention=r.alpha_convention)

    def extra_repr(self) -> str:
        return str(self.record)


class Dropout(nn.Module):
    """Dropout with either scaling; the mask is drawn from torch's generator unless it is given."""

    def __init__(self, rate: float, scaling: records.DropoutScaling) -> None:
        super().__init__()
        self.rate = rate
        self.scaling = scaling

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, ...) -> the same shape. mask: (N, features), bool or integer, 1 = keep; ignored in evaluation."""
        if not self.training:
            # Paper 4.2: all units are used, with their outputs multiplied by the share that was kept in training.
            return input * (1 - self.rate) if self.scaling == "original" and self.rate else input
        if mask is None:
            if self.rate == 0:
                return input
            outputs = input * torch.empty_like(input).bernoulli_(1 - self.rate)
        else:
            outputs = input * mask.reshape(input.shape).to(input.dtype)
        return outputs / (1 - self.rate) if self.scaling == "inverted" else outputs

    def extra_repr(self) -> str:
        return f"rate={self.rate}, scaling={self.scaling}"


def build_layer(shapes: LayerShapes) -> nn.Module:
    """The module of a layer's record, with parameters that still have to be initialised."""
    layer, inputs, outputs = shapes
    match layer:
        case records.Convolution():
            return Convolution(
                inputs[0],
                layer.channels,
                layer.kernel,
                layer.stride,
                layer.padding,
                groups=layer.groups,
                bias=layer.bias,
            )
        case records.Local():
            return Local(inputs, outputs, layer.kernel, layer.padding)
        case records.Linear():
            return Linear(math.prod(inputs), outputs[0], layer.groups)
        case records.ReLU():
            return nn.ReLU()
        case records.Tanh():
            return nn.Tanh()
        case records.SiLU():
            return nn.SiLU()
        case records.ResponseNorm():
            return ResponseNorm(layer)
        case records.SpatialNorm():
            return SpatialNorm(layer)
        case records.MaxPool():
            return nn.MaxPool2d(layer.size, layer.stride, ceil_mode=layer.ceil_mode)
        case records.AveragePool():
            return AveragePool(layer)
        case records.AdaptiveAveragePool():
            return nn.AdaptiveAvgPool2d(layer.size)
        case records.BatchNorm():
            return nn.BatchNorm2d(inputs[0], eps=layer.eps, momentum=layer.momentum)
        case records.Dropout():
            return Dropout(layer.rate, layer.scaling)
        case records.Exchange():
            return Exchange(layer)

"""Layers that torch does not have, and dropout with the scaling of 2012. The others are torch's own classes.

`AlexNet` flattens feature maps before fully-connected layers and casts weights to the dtype of the images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn, zeros
from torch.nn import functional as F

from alexnet.models import architecture as records
from alexnet.models.architecture import LayerShapes
from alexnet.models.exchange import Exchange
from alexnet.ops.block import Block, apply_block
from alexnet.ops.chunked_norm import Norm
from alexnet.ops.response_norm import norm_across_maps, norm_within_maps
from alexnet.ops.working_copy import in_dtype


class GroupedLinear(nn.Module):
    """A fully-connected layer in equal groups: each part of the outputs sees its own part of the inputs.

    weight: (features, inputs / groups), bias: (features,).
    """

    def __init__(self, in_features: int, out_features: int, groups: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.groups = in_features, out_features, groups
        self.weight = nn.Parameter(zeros(out_features, in_features // groups))
        self.bias = nn.Parameter(zeros(out_features))

    def forward(self, input: Tensor) -> Tensor:
        """(N, inputs) -> (N, features)."""
        weight, bias = in_dtype(self.weight, input.dtype), in_dtype(self.bias, input.dtype)
        inputs = self.in_features // self.groups
        parts = []
        for group in range(self.groups):  # slices, which torch.fx can trace
            columns = slice(group * inputs, (group + 1) * inputs)
            rows = records.share_of_rows(self.out_features, self.groups, group)  # the last share may be smaller
            parts.append(F.linear(input[:, columns], weight[rows], bias[rows]))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}"


class Local(nn.Module):
    """A convolution with separate weights and biases at every position (S: type=local), stride 1.

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
        # Positions first and channels last, so that a window is put together from a few long pieces, one for each of
        # its places, and its gradient taken apart the same way.
        kernel, (_, height, width) = self.kernel, self.outputs
        padded = F.pad(input.permute(2, 3, 0, 1), (0, 0, 0, 0, *(self.padding,) * 4))  # (H, W, N, C)
        places = [(row, column) for row in range(kernel) for column in range(kernel)]
        windows = torch.cat([padded[row : row + height, column : column + width] for row, column in places], dim=3)
        weight = in_dtype(self.weight, input.dtype).unflatten(2, (-1, kernel**2)).transpose(2, 3).flatten(2)
        # One matrix product per position: (positions, N, k * k * C) x (positions, k * k * C, channels).
        outputs = windows.flatten(0, 1).bmm(weight.transpose(1, 2)) + in_dtype(self.bias, input.dtype).unsqueeze(1)
        return outputs.permute(1, 2, 0).unflatten(2, self.outputs[1:])

    def extra_repr(self) -> str:
        return f"{self.outputs}, kernel={self.kernel}, padding={self.padding}"


class ResponseNorm(nn.Module):
    """Local response normalization across channels (paper 3.3)."""

    def __init__(self, record: records.ResponseNorm) -> None:
        super().__init__()
        self.record = record

    def norm(self) -> Norm:
        """The settings as an operator takes them. Raises ValueError for impossible ones."""
        r = self.record
        return norm_across_maps(r.size, r.alpha, r.beta, r.k, alpha_convention=r.alpha_convention, towers=r.towers)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return apply_block(input, Block(norm=self.norm()))

    def extra_repr(self) -> str:
        return str(self.record)


class SpatialNorm(nn.Module):
    """Local response normalization within each channel (S: type=rnorm)."""

    def __init__(self, record: records.SpatialNorm) -> None:
        super().__init__()
        self.record = record

    def norm(self) -> Norm:
        """The settings as an operator takes them. Raises ValueError for impossible ones."""
        r = self.record
        return norm_within_maps(r.size, r.alpha, r.beta, r.k, alpha_convention=r.alpha_convention)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return apply_block(input, Block(spatial=self.norm()))

    def extra_repr(self) -> str:
        return str(self.record)


class Dropout(nn.Dropout):
    """Dropout with either scaling; the mask is drawn from torch's generator unless it is given."""

    def __init__(self, p: float, scaling: records.DropoutScaling) -> None:
        super().__init__(p)
        self.scaling = scaling

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, ...) -> the same shape. mask: (N, features), bool or integer, 1 = keep; ignored in evaluation."""
        if not self.training:
            # Paper 4.2: all units are used, with their outputs multiplied by the share that was kept in training.
            return input * (1 - self.p) if self.scaling == "original" and self.p else input
        if mask is None:
            if self.p == 0:
                return input
            outputs = input * torch.empty_like(input).bernoulli_(1 - self.p)
        else:
            outputs = input * mask.reshape(input.shape).to(input.dtype)
        return outputs / (1 - self.p) if self.scaling == "inverted" else outputs

    def extra_repr(self) -> str:
        return f"p={self.p}, scaling={self.scaling}"


def build_layer(shapes: LayerShapes) -> nn.Module:
    """The module of a layer's record, with parameters that still have to be initialized."""
    layer, inputs, outputs = shapes
    match layer:
        case records.Convolution():
            return nn.Conv2d(
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
            features = math.prod(inputs), outputs[0]
            return nn.Linear(*features) if layer.groups == 1 else GroupedLinear(*features, layer.groups)
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
            # Without padding torch divides by the part of the window that is inside the map.
            divisor = layer.size**2 if layer.divisor == "window" else None
            return nn.AvgPool2d(layer.size, layer.stride, ceil_mode=layer.ceil_mode, divisor_override=divisor)
        case records.AdaptiveAveragePool():
            return nn.AdaptiveAvgPool2d(layer.size)
        case records.BatchNorm():
            return nn.BatchNorm2d(inputs[0], eps=layer.eps, momentum=layer.momentum)
        case records.Dropout():
            return Dropout(layer.rate, layer.scaling)
        case records.Exchange():
            return Exchange(layer)

"""A variant as a textbook port would have it: torch's own modules and functions, none of this package's operators."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.models import architecture as records
from alexnet.models.architecture import Architecture, LayerShapes, layer_shapes


class TextbookNetwork(nn.Module):
    """The network of an architecture record, in plain torch.

    Its layers have the names and shapes that `AlexNet` gives them, so that its `layers` take an AlexNet's state_dict.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        self.padding = architecture.pad_right_bottom
        self.layers = nn.ModuleDict(
            {
                shapes.layer.name: _plain_layer(shapes)
                for shapes in layer_shapes(architecture, num_classes, architecture.image_size)
            }
        )

    def forward(self, images: Tensor, dropout_masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (N, num_classes). images: (N, 3, H, W); dropout_masks: as for `AlexNet.forward`, for tests."""
        activations = F.pad(images, (0, self.padding, 0, self.padding)) if self.padding else images
        for name, layer in self.layers.items():
            if dropout_masks is not None and name in dropout_masks:
                activations = layer(activations, dropout_masks[name])
            else:
                activations = layer(activations)
        return activations

    def take_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Use the tensors of a state_dict of `AlexNet` as weights, without a copy."""
        self.layers.load_state_dict(weights, assign=True)


class _Local(nn.Module):
    def __init__(self, shapes: LayerShapes, layer: records.Local) -> None:
        super().__init__()
        self.kernel, self.padding, self.outputs = layer.kernel, layer.padding, shapes.outputs
        positions = math.prod(shapes.outputs[1:])
        self.weight = nn.Parameter(torch.empty(positions, layer.channels, shapes.inputs[0] * layer.kernel**2))
        self.bias = nn.Parameter(torch.empty(positions, layer.channels))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel, padding=self.padding)  # (N, C * k * k, positions)
        outputs = torch.einsum("nkp,pck->ncp", patches, self.weight) + self.bias.T
        return outputs.unflatten(2, self.outputs[1:])


class _ResponseNorm(nn.Module):
    def __init__(self, layer: records.ResponseNorm) -> None:
        super().__init__()
        self.layer = layer
        # torch divides alpha by the size of the window.
        self.alpha = layer.alpha if layer.alpha_convention == "mean" else layer.alpha * layer.size

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        # F.local_response_norm uses avg_pool3d, which knows no bfloat16 on a CPU.
        wide = x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x
        towers = wide.chunk(layer.towers, dim=1)
        normed = [F.local_response_norm(tower, layer.size, self.alpha, layer.beta, layer.k) for tower in towers]
        return (normed[0] if len(normed) == 1 else torch.cat(normed, dim=1)).to(x.dtype)


class _SpatialNorm(nn.Module):
    def __init__(self, layer: records.SpatialNorm) -> None:
        super().__init__()
        self.layer = layer
        self.alpha = layer.alpha if layer.alpha_convention == "mean" else layer.alpha * layer.size**2

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        means = F.avg_pool2d(x * x, layer.size, 1, layer.size // 2)
        return (x / (layer.k + self.alpha * means) ** layer.beta).to(x.dtype)


class _Dropout(nn.Module):
    """nn.Dropout; with the paper's scaling the outputs shrink in evaluation instead of growing in training."""

    def __init__(self, layer: records.Dropout) -> None:
        super().__init__()
        self.rate = layer.rate
        self.scale = 1 - layer.rate if layer.scaling == "original" else 1.0

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.training and mask is not None:
            x = x * mask.view_as(x) / (1 - self.rate)
        else:
            x = F.dropout(x, self.rate, self.training)
        return x if self.scale == 1 else x * self.scale


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(1))


class _GroupedLinear(nn.Linear):
    """A fully-connected layer in groups: to torch, a convolution over one position."""

    def __init__(self, num_inputs: int, features: int, groups: int) -> None:
        super().__init__(num_inputs // groups, features)
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        inputs, weight = input.flatten(1).unsqueeze(2), self.weight.unsqueeze(2)
        return F.conv1d(inputs, weight, self.bias, groups=self.groups).squeeze(2)


def _plain_layer(shapes: LayerShapes) -> nn.Module:
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
            return _Local(shapes, layer)
        case records.Linear():
            if layer.groups > 1:
                return _GroupedLinear(math.prod(inputs), outputs[0], layer.groups)
            return _Linear(math.prod(inputs), outputs[0])
        case records.ReLU():
            return nn.ReLU(inplace=True)
        case records.Tanh():
            return nn.Tanh()
        case records.SiLU():
            return nn.SiLU(inplace=True)
        case records.ResponseNorm():
            return _ResponseNorm(layer)
        case records.SpatialNorm():
            return _SpatialNorm(layer)
        case records.MaxPool():
            return nn.MaxPool2d(layer.size, layer.stride, ceil_mode=layer.ceil_mode)
        case records.AveragePool():
            if layer.divisor == "window" and layer.ceil_mode:
                # torch's exporter to ONNX ignores divisor_override: fill the last windows with zeros instead.
                fill = nn.ZeroPad2d((0, layer.stride - 1, 0, layer.stride - 1))
                return nn.Sequential(fill, nn.AvgPool2d(layer.size, layer.stride))
            return nn.AvgPool2d(layer.size, layer.stride, ceil_mode=layer.ceil_mode)
        case records.AdaptiveAveragePool():
            return nn.AdaptiveAvgPool2d(layer.size)
        case records.BatchNorm():
            return nn.BatchNorm2d(inputs[0], eps=layer.eps, momentum=layer.momentum)
        case records.Dropout():
            return _Dropout(layer)
        case records.Exchange():
            raise ValueError("a part of a network has no textbook form")

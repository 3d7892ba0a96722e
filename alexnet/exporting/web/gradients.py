"""The gradient of a class's score, layer by layer, in operations that a graph for inference can hold.

Runtimes for inference have no automatic differentiation. Each layer after the last maps has a rule here, so that
Grad-CAM becomes a part of the exported graph and shares its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.models import AlexNet
from alexnet.models.architecture import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Dropout,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    SiLU,
    SpatialNorm,
    Tanh,
)
from alexnet.ops.response_norm import norm_across_maps, norm_within_maps


def score_gradient(model: AlexNet, outputs: Mapping[str, Tensor], layer: str, classes: Tensor) -> Tensor:
    """The gradient of one logit of each image by the outputs of `layer`, in their shape.

    outputs: of all layers in order, as `AlexNet.activations` gives them; classes: (N,) int64, the logit's position.
    The layers after `layer` are of any kind but convolutions.
    """
    gradient = F.one_hot(classes, model.num_classes).to(torch.float32)
    records = {record.name: record for record in model.architecture.layers}
    names = list(records)
    for position in range(len(names) - 1, names.index(layer), -1):
        name, before = names[position], names[position - 1]
        gradient = pull_back(records[name], model.get_submodule(name), outputs[before], outputs[name], gradient)
    return gradient


def pull_back(layer: Layer, module: Any, inputs: Tensor, outputs: Tensor, gradient: Tensor) -> Tensor:
    """The chain rule at one layer in evaluation: the gradient by its inputs from that by its outputs.

    module: what was built of the record; only its weights are looked at.
    """
    match layer:
        case Linear():
            if layer.groups == 1:
                return (gradient @ module.weight).reshape(inputs.shape)
            weights = module.weight.chunk(layer.groups)
            parts = [part @ weight for part, weight in zip(gradient.chunk(layer.groups, 1), weights, strict=True)]
            return torch.cat(parts, dim=1).reshape(inputs.shape)
        case ReLU():
            return gradient * (outputs > 0)
        case Tanh():
            return gradient * (1 - outputs * outputs)
        case SiLU():
            gate = inputs.sigmoid()
            return gradient * gate * (1 + inputs * (1 - gate))
        case Dropout():
            return gradient * (1 - layer.rate) if layer.scaling == "original" else gradient
        case BatchNorm():
            scale = module.weight / (module.running_var + layer.eps).sqrt()
            return gradient * scale[:, None, None]
        case MaxPool():
            return _to_the_largest(layer, inputs, gradient)
        case AveragePool() | AdaptiveAveragePool():
            means = _window_means(layer, inputs.shape[2], outputs.shape[2])
            return means.T @ gradient @ means
        case ResponseNorm():
            norm = norm_across_maps(
                layer.size, layer.alpha, layer.beta, layer.k, alpha_convention=layer.alpha_convention
            )
            window = _band(inputs.shape[1], layer.size, layer.towers)

            def sums(maps: Tensor, matrix: Tensor) -> Tensor:
                return (matrix @ maps.flatten(2)).reshape(maps.shape)

            denominator = norm.k + norm.scale * sums(inputs * inputs, window)
            inner = sums(gradient * inputs * denominator ** (-norm.beta - 1), window.T)
            return gradient * denominator**-norm.beta - 2 * norm.beta * norm.scale * inputs * inner
        case SpatialNorm():
            norm = norm_within_maps(
                layer.size, layer.alpha, layer.beta, layer.k, alpha_convention=layer.alpha_convention
            )
            window = _band(inputs.shape[2], layer.size)  # odd and centred, so its own transpose
            denominator = norm.k + norm.scale * (window @ (inputs * inputs) @ window)
            inner = window @ (gradient * inputs * denominator ** (-norm.beta - 1)) @ window
            return gradient * denominator**-norm.beta - 2 * norm.beta * norm.scale * inputs * inner
        case _:
            raise NotImplementedError(f"{type(layer).__name__} after the last maps")


def _to_the_largest(layer: MaxPool, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Each output's gradient goes to the first of the largest values of its window."""
    _, places = F.max_pool2d(inputs, layer.size, layer.stride, ceil_mode=layer.ceil_mode, return_indices=True)
    flat = torch.zeros_like(inputs).flatten(2)
    return flat.scatter_add(2, places.flatten(2), gradient.flatten(2)).reshape(inputs.shape)


def _window_means(layer: AveragePool | AdaptiveAveragePool, count: int, num_windows: int) -> Tensor:
    """(windows, count): along one axis, the weights of each window's mean. Both axes together give the pooling."""
    windows = torch.arange(num_windows)
    if isinstance(layer, AveragePool):
        starts = windows * layer.stride
        stops = (starts + layer.size).clamp(max=count)
    else:
        starts = windows * count // num_windows
        stops = -(-(windows + 1) * count // num_windows)
    places = torch.arange(count)
    inside = (places >= starts[:, None]) & (places < stops[:, None])
    if isinstance(layer, AveragePool) and layer.divisor == "window":
        return inside / layer.size
    return inside / inside.sum(dim=1, keepdim=True)


def _band(count: int, size: int, towers: int = 1) -> Tensor:
    """(count, count): row i is 1 where the window of i is, as `alexnet.ops.response_norm` places it."""
    places = torch.arange(count)
    offsets = places[None] - places[:, None] + size // 2
    in_tower = places[None] // (count // towers) == places[:, None] // (count // towers)
    return ((offsets >= 0) & (offsets < size) & in_tower).to(torch.float32)

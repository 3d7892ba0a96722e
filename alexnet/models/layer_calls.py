"""Running one layer of a network on activations of any floating-point dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.models.layers import GroupedLinear, Local
from alexnet.ops.chunked_norm import needs_torch_operations
from alexnet.ops.space_to_depth import conv2d_by_space_to_depth
from alexnet.ops.working_copy import in_dtype

FORWARDS: Mapping[type, Any] = {kind: kind.forward for kind in (nn.Conv2d, nn.Linear)}


def is_untouched(layer: nn.Module, forwards: Mapping[type, Any]) -> bool:
    """Whether a layer is exactly of one of these classes, runs the forward given for it, and has no hook."""
    forward = forwards.get(type(layer))
    return (
        forward is not None
        and type(layer).forward is forward
        and "forward" not in layer.__dict__
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)
    )


def call_layer(layer: nn.Module, activations: Tensor, *, space_to_depth: bool = False) -> Tensor:
    """Run a layer on activations (N, ...), with its floating-point weights cast to their dtype.

    space_to_depth: compute a convolution in that form (ops/space_to_depth.py); ignored for other layers.
    """
    if needs_torch_operations(activations):
        return _plain_average_pool(layer, activations) if _divides_by_window(layer) else layer(activations)
    weight: Any = getattr(layer, "weight", None)
    is_plain = is_untouched(layer, FORWARDS) and getattr(layer, "padding_mode", "zeros") == "zeros"
    space_to_depth = space_to_depth and is_plain and _has_space_to_depth(layer)
    if not space_to_depth and not _casts(layer, weight, activations.dtype):
        return layer(activations)
    if not is_plain:
        # Hooks have to see the call. This swaps attributes of the layer, so that it is not for several threads at once.
        weights = {name: in_dtype(weight, activations.dtype) for name, weight in layer.named_parameters()}
        return torch.func.functional_call(layer, weights, activations)
    weight = in_dtype(weight, activations.dtype)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    bias = None if layer.bias is None else in_dtype(layer.bias, activations.dtype)
    if isinstance(layer, nn.Linear):
        return F.linear(activations, weight, bias)
    if space_to_depth:
        return conv2d_by_space_to_depth(activations, weight, bias, layer.stride[0], int(layer.padding[0]))
    return F.conv2d(activations, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _casts(layer: nn.Module, weight: object, dtype: torch.dtype) -> bool:
    """Whether the weights have another dtype, and somebody has to cast them."""
    if not isinstance(weight, Tensor) or weight.dtype == dtype:
        return False
    if isinstance(layer, Local | GroupedLinear | nn.modules.batchnorm._BatchNorm):
        return False  # they do that themselves, or compute in float32 whatever the input is
    return not hasattr(weight, "to_local")  # the hooks of FSDP gather and cast divided weights


def _has_space_to_depth(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and set(layer.dilation) == {1}
        and all(len(set(sides)) == 1 for sides in (layer.kernel_size, layer.stride, layer.padding))
    )


def _divides_by_window(layer: nn.Module) -> bool:
    """Whether this is the average pool of 2011: ceil, and every window divided by the same number."""
    return (
        isinstance(layer, nn.AvgPool2d)
        and layer.divisor_override is not None
        and layer.ceil_mode
        and isinstance(layer.kernel_size, int)
        and isinstance(layer.stride, int)
        and layer.padding == 0
        and layer.kernel_size >= layer.stride
    )


def _plain_average_pool(layer: nn.Module, activations: Tensor) -> Tensor:
    """Fill the last windows with zeros: torch's exporter to ONNX ignores `divisor_override`."""
    assert isinstance(layer, nn.AvgPool2d) and isinstance(layer.kernel_size, int) and isinstance(layer.stride, int)
    fill = layer.stride - 1  # with so much more, floor gives as many windows as ceil
    means = F.avg_pool2d(F.pad(activations, (0, fill, 0, fill)), layer.kernel_size, layer.stride)
    factor = layer.kernel_size**2 / (layer.divisor_override or 1)
    return means if factor == 1 else means * factor

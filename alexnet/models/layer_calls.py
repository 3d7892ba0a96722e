"""Running one layer of a network on activations of any floating-point dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from alexnet.models.layers import GroupedLinear, Local
from alexnet.ops.chunked_norm import needs_torch_operations
from alexnet.ops.space_to_depth import conv2d_by_space_to_depth
from alexnet.ops.working_copy import in_dtype

_WEIGHTED: Mapping[type, Any] = {kind: kind.forward for kind in (nn.Conv2d, nn.Linear)}
_POOLS: Mapping[type, Any] = {nn.AvgPool2d: nn.AvgPool2d.forward}
_MODULE_CALL = nn.Module.__call__


def is_watched() -> bool:
    """Whether every call of a module is looked at: by global hooks, or by a patched `nn.Module.__call__`."""
    return nn.Module.__call__ is not _MODULE_CALL or bool(
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def is_untouched(layer: nn.Module, forwards: Mapping[type, Any]) -> bool:
    """Whether a layer is exactly of one of these classes, runs the forward given for it, and has no hook."""
    forward = forwards.get(type(layer))
    return (
        forward is not None
        and type(layer).forward is forward
        and "forward" not in layer.__dict__
        and "_conv_forward" not in layer.__dict__
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)
    )


def call_layer(layer: nn.Module, activations: Tensor, *, space_to_depth: bool = False) -> Tensor:
    """Run a layer on activations (N, ...), with its floating-point weights cast to their dtype.

    space_to_depth: compute a convolution in that form (ops/space_to_depth.py); ignored for other layers.
    """
    if needs_torch_operations(activations) and _divides_by_window(layer):
        return _plain_average_pool(layer, activations)
    if not isinstance(activations, Tensor):  # a proxy of torch.fx has no dtype
        return layer(activations)
    if not space_to_depth and not _casts(layer, activations.dtype):
        return layer(activations)
    if is_watched() or not is_untouched(layer, _WEIGHTED) or getattr(layer, "padding_mode", "zeros") != "zeros":
        with _WeightsInDtypeOfInput(space_to_depth):
            return layer(activations)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if isinstance(layer, nn.Linear):
        return _linear(activations, layer.weight, layer.bias)
    return _conv2d(
        space_to_depth, activations, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


class _WeightsInDtypeOfInput(TorchFunctionMode):
    """Inside, convolutions and matrix products cast their weights, wherever in a layer they are called."""

    def __init__(self, space_to_depth: bool) -> None:
        super().__init__()
        self.space_to_depth = space_to_depth

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        if func is F.conv2d:
            return _conv2d(self.space_to_depth, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(input, in_dtype(weight, input.dtype), None if bias is None else in_dtype(bias, input.dtype))


def _conv2d(
    space_to_depth: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    weight, bias = in_dtype(weight, input.dtype), None if bias is None else in_dtype(bias, input.dtype)
    sides = [setting for setting in (stride, padding, weight.shape[2:]) if isinstance(setting, tuple)]
    is_square = len(sides) == 3 and all(len(set(side)) == 1 for side in sides)
    if space_to_depth and is_square and groups == 1 and set(dilation) == {1}:
        return conv2d_by_space_to_depth(input, weight, bias, stride[0], padding[0])
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _casts(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the weights have another dtype, and the caller must cast them."""
    if isinstance(layer, Local | GroupedLinear | nn.modules.batchnorm._BatchNorm):
        return False  # they cast themselves, or compute in float32 whatever the input is
    weight = next(layer.parameters(), None)
    # The hooks of FSDP gather and cast divided weights.
    return weight is not None and weight.dtype != dtype and not hasattr(weight, "to_local")


def _divides_by_window(layer: nn.Module) -> bool:
    """Whether this is the average pool of 2011: ceil, and every window divided by the same number."""
    return (
        isinstance(layer, nn.AvgPool2d)
        and is_untouched(layer, _POOLS)
        and not (torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)
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
    if (
        isinstance(activations, Tensor)
        and torch.compiler.is_exporting()
        and layer.divisor_override == layer.kernel_size**2
    ):
        # Called as a module, so that its node has the layer's name; with whole windows the divisor is the usual one.
        height, width = ((layer.kernel_size - side) % layer.stride for side in activations.shape[2:])
        return layer(F.pad(activations, (0, width, 0, height)))
    fill = layer.stride - 1  # this padding makes floor give as many windows as ceil
    means = F.avg_pool2d(F.pad(activations, (0, fill, 0, fill)), layer.kernel_size, layer.stride)
    factor = layer.kernel_size**2 / (layer.divisor_override or 1)
    return means if factor == 1 else means * factor

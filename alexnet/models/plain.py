"""A network as nothing but torch's own modules and operations."""

from __future__ import annotations

import copy
from typing import Any

import torch.fx
from torch import Tensor, nn

from alexnet.models.layer_calls import is_untouched
from alexnet.models.layers import Dropout, GroupedLinear, Local, ResponseNorm, SpatialNorm

_DROPOUT = {Dropout: Dropout.forward}
_OURS = ResponseNorm | SpatialNorm | Local | GroupedLinear


class _Tracer(torch.fx.Tracer):
    """Records the operations of our layers, and calls of all others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, _OURS)


def to_plain(model: nn.Module) -> torch.fx.GraphModule:
    """Return the same network built of torch's own modules and operations only.

    It computes what `model` computes now, replaced layers included, with a copy of its weights under the same names,
    and follows `train()` and `eval()`. It can be scripted, traced, exported, quantized, vectorized (torch.func.vmap)
    and counted, and its files load without this package. It runs layer by layer, more slowly than `model`, and takes
    images in the dtype of its weights. Hooks are not copied.

    Args:
        model: an `AlexNet`.

    Returns:
        A module that maps images (N, 3, H, W) to logits (N, num_classes).

    Raises:
        ValueError: If a hook computes the weight of a layer (pruning, the older spectral norm).
    """
    for name, layer in model.named_modules():
        if isinstance(vars(layer).get("weight"), Tensor):
            raise ValueError(
                f"the weight of {name} is computed by a hook, which a plain network would lose; make it permanent "
                "first (torch.nn.utils.prune.remove, torch.nn.utils.remove_spectral_norm)"
            )
    source = copy.deepcopy(model)
    for module in source.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
        module._backward_pre_hooks.clear()
    graph = _Tracer().trace(source, {"dropout_masks": None})
    graph._tracer_cls = None  # a saved module would refer to a class of this package
    plain = torch.fx.GraphModule(source, graph, class_name=type(model).__name__)
    _, masks = plain.graph.find_nodes(op="placeholder")
    for node in [*masks.users, masks]:  # an assertion that there are none
        plain.graph.erase_node(node)
    for node in list(plain.graph.nodes):
        node.type = None  # annotations, which would be names of this package
        if node.op == "call_module" and is_untouched(layer := plain.get_submodule(node.target), _DROPOUT):
            _use_torch_dropout(plain, node, layer)
    plain.graph.lint()
    plain.recompile()
    plain.training = model.training  # each layer has its own mode already
    return plain


def _use_torch_dropout(plain: torch.fx.GraphModule, node: Any, layer: Any) -> None:
    """torch's dropout divides by 1 - p in training; the paper's multiplies by it in evaluation: multiply always."""
    plain.set_submodule(node.target, nn.Dropout(layer.p).train(layer.training))
    if layer.scaling == "original" and layer.p:
        with plain.graph.inserting_after(node):
            scaled = plain.graph.call_function(torch.mul, (node, 1 - layer.p))
        node.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)

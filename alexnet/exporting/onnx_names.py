"""Names that people know in an exported graph: nodes, tensors and weights called after the network's layers."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

_PREFIX = "model."
_WEIGHTS = {
    ".parametrizations.weight.original0": ".weight.stored",
    ".parametrizations.weight.original1": ".weight.scale",
}


def name_layers(model: onnx_ir.Model) -> None:
    """Call the output of layer conv1 "conv1", the node that gives it too, and its weights conv1.weight and conv1.bias.

    Other nodes of a layer are conv1/OPERATOR. What the exporter noted about the source code it came from is taken out:
    it holds paths of this machine.
    """
    graph = model.graph
    nodes_of: dict[str, list[onnx_ir.Node]] = defaultdict(list)
    for node in graph:
        nodes_of[_layer_of(node)].append(node)
    outputs = set(graph.outputs)
    for layer, nodes in nodes_of.items():
        counts: dict[str, int] = defaultdict(int)
        for node in nodes:
            counts[node.op_type] += 1
            number = f"_{counts[node.op_type]}" if counts[node.op_type] > 1 else ""
            node.name = f"{layer}/{node.op_type}{number}" if layer else f"{node.op_type}{number}"
        if layer:
            nodes[-1].name = layer
            if nodes[-1].outputs[0] not in outputs:
                nodes[-1].outputs[0].name = layer
    for value in list(graph.initializers.values()):
        name = str(value.name).removeprefix(_PREFIX)
        for ending, plain in _WEIGHTS.items():
            name = name.replace(ending, plain)
        value.name = name
    _forget_source(model)


def _layer_of(node: onnx_ir.Node) -> str:
    """The layer that a node belongs to, by the exporter's note of the modules it came from; else ""."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    inside = [scope for scope in scopes if scope.startswith(_PREFIX)]
    return inside[0].removeprefix(_PREFIX).split(".")[0] if inside else ""


def _forget_source(model: onnx_ir.Model) -> None:
    graph = model.graph
    graph.metadata_props.clear()
    for value in [*graph.inputs, *graph.outputs, *graph.initializers.values()]:
        value.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()

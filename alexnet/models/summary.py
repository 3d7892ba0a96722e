"""What a variant costs, layer by layer, and in what two variants differ."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

from alexnet.models.architecture import (
    Architecture,
    BatchNorm,
    Convolution,
    Layer,
    LayerShapes,
    Linear,
    Local,
    Shape,
    layer_shapes,
)
from alexnet.models.initialization import SCHEMES

_TORCH_DEFAULT = "uniform within 1/sqrt(fan-in)"


@dataclass(frozen=True)
class LayerRow:
    """A layer's line in the table of `layer_table`."""

    name: str
    kind: str
    """Name of its record's class in `alexnet.models.architecture`."""
    output_shape: Shape
    """Of one image: (channels, height, width) or (features,)."""
    parameters: int
    macs: int
    """Multiply-adds of weights with inputs in one forward pass of one image; norms and pools count none."""


@dataclass(frozen=True)
class Difference:
    """One thing in which two variants are not the same; None: not there."""

    layer: str
    """A layer's name, or "input"."""
    field: str
    """A field of the layer's record, "position", "layer", "initial_std" or "initial_bias"."""
    a: Any
    b: Any


def layer_table(architecture: Architecture, num_classes: int = 1000, image_size: int | None = None) -> list[LayerRow]:
    """The layers in order, for one image of image_size pixels (None: the architecture's own).

    Raises UserError for an impossible image size.
    """
    size = architecture.image_size if image_size is None else image_size
    return [
        LayerRow(shapes.layer.name, type(shapes.layer).__name__, shapes.outputs, *_cost(shapes))
        for shapes in layer_shapes(architecture, num_classes, size)
    ]


def _cost(shapes: LayerShapes) -> tuple[int, int]:
    """(parameters, multiply-adds) of a layer."""
    layer, inputs, outputs = shapes
    num_outputs = math.prod(outputs)
    match layer:
        case Convolution():
            fan_in = inputs[0] // layer.groups * layer.kernel**2
            return layer.channels * (fan_in + layer.bias), num_outputs * fan_in
        case Local():
            fan_in = inputs[0] * layer.kernel**2
            return num_outputs * (fan_in + 1), num_outputs * fan_in
        case Linear():
            fan_in = math.prod(inputs) // layer.groups
            return num_outputs * (fan_in + 1), num_outputs * fan_in
        case BatchNorm():
            return 2 * inputs[0], 0
        case _:
            return 0, 0


def compare(a: Architecture, b: Architecture) -> list[Difference]:
    """In what two variants differ: their input, then their layers in order, then how their layers begin.

    A layer that both have in another place is reported by the layer it follows. Names and descriptions are left out.
    """
    differences = [
        Difference("input", field, getattr(a, field), getattr(b, field))
        for field in ("image_size", "pad_right_bottom", "input_scale", "channel_order")
    ]
    layers_a, layers_b = ({layer.name: layer for layer in variant.layers} for variant in (a, b))
    moved = _moved(list(layers_a), list(layers_b))
    for name in [*layers_a, *(name for name in layers_b if name not in layers_a)]:
        differences += _layer_differences(name, layers_a.get(name), layers_b.get(name))
        if name in moved:
            differences.append(Difference(name, "position", _position(name, a), _position(name, b)))
    for name in layers_a:
        if name in layers_b:
            starts = zip(("initial_std", "initial_bias"), _initial(a, name), _initial(b, name), strict=True)
            differences += [Difference(name, field, start_a, start_b) for field, start_a, start_b in starts]
    return [difference for difference in differences if difference.a != difference.b]


def _layer_differences(name: str, a: Layer | None, b: Layer | None) -> list[Difference]:
    if a is None or b is None or type(a) is not type(b):
        return [Difference(name, "layer", *(None if layer is None else type(layer).__name__ for layer in (a, b)))]
    fields_a, fields_b = asdict(a), asdict(b)
    return [Difference(name, field, fields_a[field], fields_b[field]) for field in fields_a]


def _moved(names_a: list[str], names_b: list[str]) -> set[str]:
    """The layers that two variants share but have in another order: as few as explain it."""
    common_a = [name for name in names_a if name in names_b]
    common_b = [name for name in names_b if name in names_a]
    blocks = SequenceMatcher(None, common_a, common_b, autojunk=False).get_matching_blocks()
    in_order = {name for block in blocks for name in common_a[block.a : block.a + block.size]}
    return set(common_a) - in_order


def _position(name: str, architecture: Architecture) -> str:
    names = ["the input", *(layer.name for layer in architecture.layers)]
    return f"after {names[names.index(name) - 1]}"


def _initial(architecture: Architecture, name: str) -> tuple[float | str | None, float | str | None]:
    """(standard deviation of the weights, bias) a layer begins with; None where it has none."""
    layer = next(layer for layer in architecture.layers if layer.name == name)
    if not isinstance(layer, Convolution | Local | Linear):
        return None, None
    table = SCHEMES[architecture.initialization]
    has_bias = not isinstance(layer, Convolution) or layer.bias
    if table is None:
        return _TORCH_DEFAULT, _TORCH_DEFAULT if has_bias else None
    return table[name].std, table[name].bias if has_bias else None

"""Numbers of the paper that follow from the records of the layers alone, as text."""

from __future__ import annotations

import math
from collections.abc import Callable

from alexnet.config_io import load_recipe
from alexnet.evaluation.views import view_crops
from alexnet.models.architecture import Architecture, Convolution, layer_shapes
from alexnet.models.summary import LayerRow, layer_table
from alexnet.models.variants import AS_RUN, PAPER


def calculate(name: str) -> str:
    """A calculation by its name, with arguments after it: "neurons conv1". Raises KeyError for an unknown name."""
    name, *arguments = name.split()
    return _CALCULATIONS[name](*arguments)


def _parameters() -> str:
    return f"{sum(row.parameters for row in layer_table(AS_RUN)):,}"


def _largest_convolution_share() -> str:
    """In percent of all parameters."""
    rows = layer_table(AS_RUN)
    largest = max(row.parameters for row in rows if row.kind == "Convolution")
    return f"{100 * largest / sum(row.parameters for row in rows):.2f}"


def _neurons(*layers: str) -> str:
    """Outputs of each named layer, or of all layers with weights together."""
    rows = {row.name: _size(row) for row in layer_table(PAPER) if row.parameters}
    return " / ".join(f"{rows[name]:,}" for name in layers) if layers else f"{sum(rows.values()):,}"


def _size(row: LayerRow) -> int:
    return math.prod(row.output_shape)


def _inputs() -> str:
    return f"{3 * PAPER.image_size**2:,}"


def _kernels() -> str:
    return " / ".join(kernels_of(AS_RUN))


def kernels_of(architecture: Architecture) -> list[str]:
    """Number and size of each convolution's kernels, as the paper writes them."""
    return [
        f"{layer.channels} of {layer.kernel}x{layer.kernel}x{inputs[0] // layer.groups}"
        for layer, inputs, _ in layer_shapes(architecture, 1000, architecture.image_size)
        if isinstance(layer, Convolution)
    ]


def _multiply_adds() -> str:
    return f"{sum(row.macs for row in layer_table(AS_RUN)):,}"


def _training_views() -> str:
    """Crops at every offset, with their reflections."""
    offsets = load_recipe("as-run-2012").data.image_size - AS_RUN.image_size + 1
    return f"{2 * offsets**2:,}"


def _evaluation_views() -> str:
    recipe = load_recipe("as-run-2012")
    return str(len(view_crops(recipe.evaluate.views, recipe.data.image_size, AS_RUN.image_size)))


_CALCULATIONS: dict[str, Callable[..., str]] = {
    "parameters": _parameters,
    "largest_convolution_share": _largest_convolution_share,
    "neurons": _neurons,
    "inputs": _inputs,
    "kernels": _kernels,
    "multiply_adds": _multiply_adds,
    "training_views": _training_views,
    "evaluation_views": _evaluation_views,
}

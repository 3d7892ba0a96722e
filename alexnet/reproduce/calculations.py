"""Numbers of the paper that follow from the records of the layers and from recipes alone, as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from alexnet.config_io import load_recipe
from alexnet.evaluation.views import view_crops
from alexnet.models.architecture import Architecture, Convolution, Dropout, MaxPool, ResponseNorm, layer_shapes
from alexnet.models.initialization import SCHEMES
from alexnet.models.summary import LayerRow, layer_table
from alexnet.models.variants import AS_RUN, PAPER

NUM_CLASSES = 1000


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
        for layer, inputs, _ in layer_shapes(architecture, NUM_CLASSES, architecture.image_size)
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


def _response_norm() -> str:
    """k / n / alpha on the sum of squares / beta."""
    norm = next(layer for layer in AS_RUN.layers if isinstance(layer, ResponseNorm))
    alpha = norm.alpha / norm.size if norm.alpha_convention == "mean" else norm.alpha
    return f"{norm.k:g} / {norm.size} / {alpha:g} / {norm.beta:g}"


def _pooling() -> str:
    """Window / step of every pool."""
    (sizes,) = {(layer.size, layer.stride) for layer in AS_RUN.layers if isinstance(layer, MaxPool)}
    return f"{sizes[0]} / {sizes[1]}"


def _initial(what: str) -> str:
    """The std of the weights, or the bias, of every layer that has some."""
    table = SCHEMES[AS_RUN.initialization]
    assert table is not None
    rows = [row.name for row in layer_table(AS_RUN) if row.parameters]
    return " / ".join(f"{getattr(table[name], what):g}" for name in rows)


def _dropout() -> str:
    dropped = [layer for layer in AS_RUN.layers if isinstance(layer, Dropout)]
    return f"{dropped[0].rate:g} in {len(dropped)} layers"


def _sizes() -> str:
    return f"{load_recipe('as-run-2012').data.image_size} / {AS_RUN.image_size}"


def _value(key: str) -> str:
    """A value of the recipe of Table 2, by its key."""
    value: Any = load_recipe("as-run-2012")
    for part in key.split("."):
        value = getattr(value, part)
    return f"{value:g}"


def _learning_rates() -> str:
    """Of weights and of biases, at the start."""
    optimizer = load_recipe("as-run-2012").optimizer
    return f"{optimizer.lr:g} / {optimizer.lr * optimizer.bias_lr_factor:g}"


def _drops() -> str:
    return str(len(load_recipe("as-run-2012").schedule.milestones))


def _bits() -> str:
    """What the label of one image says, in bits, where all classes are equally common."""
    return f"{math.log2(NUM_CLASSES):.2f}"


_CALCULATIONS: dict[str, Callable[..., str]] = {
    "parameters": _parameters,
    "largest_convolution_share": _largest_convolution_share,
    "neurons": _neurons,
    "inputs": _inputs,
    "kernels": _kernels,
    "multiply_adds": _multiply_adds,
    "training_views": _training_views,
    "evaluation_views": _evaluation_views,
    "response_norm": _response_norm,
    "pooling": _pooling,
    "initial": _initial,
    "dropout": _dropout,
    "sizes": _sizes,
    "value": _value,
    "learning_rates": _learning_rates,
    "drops": _drops,
    "bits": _bits,
}

"""What is wrong with the trained network that a recipe begins with: alone, for the recipe, and for a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alexnet.config import Recipe
from alexnet.data.preprocessing import Preprocessing
from alexnet.doctor.activations import MEAN_IMAGES, read_squares
from alexnet.doctor.checkpoint import inspect_checkpoint, inspect_colors
from alexnet.doctor.data import DataFacts
from alexnet.doctor.findings import Finding, finding
from alexnet.errors import UserError
from alexnet.models import AlexNet
from alexnet.training.freezing import is_frozen_from_the_start
from alexnet.training.initial_weights import (
    adapt_preprocessing,
    copy_weights,
    describe_start,
    dropout_difference,
    open_initial_weights,
    size_difference,
)


def inspect_init(
    name: str, recipe: Recipe, model: AlexNet, classes: Sequence[str]
) -> tuple[Preprocessing | None, list[Finding]]:
    """Findings about model.init, whose weights are copied into `model`, the recipe's network.

    classes: of the data; of none the last layer is new. Also returns how the network is shown images; None where the
    checkpoint cannot be used.
    """
    assert recipe.model.init is not None
    try:
        initial = open_initial_weights(recipe.model)
    except UserError as error:
        return None, [finding("recipe-refused", name, str(error))]
    findings = inspect_checkpoint(Path(recipe.model.init))[1]
    try:
        layers = copy_weights(model, initial, classes, recipe.model)
    except UserError as error:
        return None, [*findings, finding("recipe-refused", name, str(error))]
    names = (*layers.copied, *layers.new)
    frozen = [layer for layer in names if is_frozen_from_the_start(recipe, layer, layers.copied)]
    findings.append(finding("initial-weights", name, describe_start(initial, layers, frozen, model.num_classes)))
    if len(frozen) == len(names):
        findings.append(finding("nothing-learns", name, "The learning rate of every layer is 0 from the first step."))
    else:
        findings += frozen_at_random(name, [layer for layer in frozen if layer in layers.new])
    size = size_difference(initial.checkpoint, recipe, model.image_size)
    dropout = dropout_difference(initial.checkpoint, model)
    findings += [finding("initial-image-size", name, size)] if size else []
    findings += [finding("initial-dropout", name, dropout)] if dropout else []
    return adapt_preprocessing(initial.checkpoint.preprocessing, recipe, model.image_size), findings


def frozen_at_random(name: str, layers: Sequence[str]) -> list[Finding]:
    """A finding about layers that are frozen and have random weights."""
    if not layers:
        return []
    return [finding("frozen-at-random", name, f"{', '.join(layers)}: frozen from the start, with random weights.")]


def inspect_init_fit(recipe: Recipe, preprocessing: Preprocessing, facts: DataFacts) -> list[Finding]:
    """Whether the data's images look like those that the network was trained on, by their mean colour."""
    if facts.source is None or facts.source.train is None:
        return []
    squares = read_squares(facts.source.train, preprocessing.image_size, MEAN_IMAGES)
    remedy = "Nothing: the network learns its way; expect more from it than from random weights, and less than usual."
    return inspect_colors(str(recipe.model.init), preprocessing, squares.pixels, severity="note", remedy=remedy)

"""The network that a recipe describes, with the weights it begins with: random ones, or those of a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.config import OptimizerConfig, Recipe, ScheduleConfig
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import AlexNet, build_network
from alexnet.training.freezing import is_frozen_from_the_start
from alexnet.training.initial_weights import (
    InitialWeights,
    adapt_preprocessing,
    copy_weights,
    describe_start,
    dropout_difference,
    open_initial_weights,
    record_of,
    size_difference,
)
from alexnet.training.run_folder import RunFolder


def build_recipe_network(recipe: Recipe, num_classes: int) -> AlexNet:
    """The network with random weights. Raises UserError for values that do not go together."""
    model = recipe.model
    return build_network(
        model.name,
        num_classes,
        image_size=model.image_size,
        initialization=model.initialization,
        dropout=model.dropout,
        input_scale=model.input_scale,
        activation=model.activation,
        pooling=model.pooling,
        without=model.without,
        seed=recipe.seed,
    )


class BegunNetwork(NamedTuple):
    """The network of a run before its first step."""

    model: AlexNet
    copied: tuple[str, ...] = ()
    """Layers that were copied from the checkpoint of model.init; none where the run goes on without that file."""
    preprocessing: Preprocessing | None = None
    """How the checkpoint was shown images, at this run's sizes; None where it is for the data to say."""
    record: Mapping[str, Any] = {}
    """For environment.json."""
    notes: tuple[str, ...] = ()


def begin_network(recipe: Recipe, folder: RunFolder, classes: Sequence[str]) -> tuple[Recipe, BegunNetwork]:
    """The network of a run in `folder` with the weights it begins with, and the recipe with their SHA-256.

    Raises UserError where recipe, checkpoint and classes do not fit.
    """
    recipe, initial = _open_init(recipe, folder)
    return recipe, start_network(recipe, initial, classes)


def _open_init(recipe: Recipe, folder: RunFolder) -> tuple[Recipe, InitialWeights | None]:
    """The checkpoint of model.init, and the recipe with its SHA-256, which is a part of the run's identity.

    A run with a checkpoint of its own no longer needs it: it goes on when the file is gone or is another one by now.
    """
    if recipe.model.init is None:
        return _with_digest(recipe, None), None
    saved = folder.saved_recipe()
    if saved is not None and saved.model.init == recipe.model.init and folder.resumable():
        digest = saved.model.init_sha256
        if recipe.model.init_sha256 == digest or not Path(recipe.model.init).exists():
            return _with_digest(recipe, digest), None
    initial = open_initial_weights(recipe.model)
    return _with_digest(recipe, initial.sha256), initial


def _with_digest(recipe: Recipe, digest: str | None) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"init_sha256": digest})})


def start_network(recipe: Recipe, initial: InitialWeights | None, classes: Sequence[str]) -> BegunNetwork:
    """The network before its first step, with random weights or with `initial`. Raises UserError as begin_network."""
    model = build_recipe_network(recipe, len(classes))
    _check_fits(recipe, model)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))
    begun = None if initial is None else copy_weights(model, initial, classes, recipe.model)
    copied = () if begun is None else begun.copied
    frozen = [layer for layer in layers if is_frozen_from_the_start(recipe, layer, copied)]
    if len(frozen) == len(layers):
        raise UserError(
            "every layer is frozen from the first step, so nothing would learn; raise optimizer.copied_lr_factor, or a "
            "layer's lr_factor, above 0"
        )
    if initial is None or begun is None:
        return BegunNetwork(model)
    notes = (
        describe_start(initial, begun, frozen, len(classes)),
        size_difference(initial.checkpoint, recipe, model.image_size),
        dropout_difference(initial.checkpoint, model),
    )
    preprocessing = adapt_preprocessing(initial.checkpoint.preprocessing, recipe, model.image_size)
    record = {"init": record_of(initial, begun, frozen)}
    return BegunNetwork(model, copied, preprocessing, record, tuple(note for note in notes if note))


def _check_fits(recipe: Recipe, model: AlexNet) -> None:
    """What a recipe can say that its model or data cannot do; refused before anything is written or decoded."""
    if recipe.data.image_size < model.image_size:
        raise UserError(
            f"data.image_size = {recipe.data.image_size} is smaller than the input of {recipe.model.name}, "
            f"{model.image_size} px; raise it, or set model.image_size."
        )
    if recipe.model.init is None:
        for key, said in (
            ("model.init_without", recipe.model.init_without != ()),
            ("optimizer.copied_lr_factor", recipe.optimizer.copied_lr_factor != OptimizerConfig().copied_lr_factor),
        ):
            if said:
                raise UserError(
                    f"{key} is for layers that are copied from a trained network, and there is none: give it by "
                    "--init, or leave the key out."
                )
    _check_plateaus(recipe.schedule)
    for key, what, layers in unknown_layers(recipe, model):
        raise UserError(f"{key}: {recipe.model.name} {what}; use one of {', '.join(layers)}.")


def unknown_layers(recipe: Recipe, model: AlexNet) -> list[tuple[str, str, list[str]]]:
    """List the keys of a recipe that name a layer its network does not have, or has without biases.

    Args:
        recipe: The recipe.
        model: The network that it describes.

    Returns:
        For each such key (as `schedule.layers.conv9`): the key, what the network lacks, and the names it could have.
    """
    parameters = [name.rpartition(".") for name, _ in model.named_parameters()]
    layers = list(dict.fromkeys(layer for layer, _, _ in parameters))
    with_biases = [layer for layer, _, kind in parameters if kind == "bias"]
    schedule = recipe.schedule
    of_biases = {} if schedule.bias is None else schedule.bias.layers
    named = [
        ("schedule", schedule.layers, layers, "has no such layer"),
        ("schedule.bias", of_biases, with_biases, "has no biases there"),
        ("optimizer", recipe.optimizer.layers, layers, "has no such layer"),
    ]
    return [
        (f"{section}.layers.{layer}", what, known)
        for section, own, known, what in named
        for layer in own
        if layer not in known
    ]


def _check_plateaus(schedule: ScheduleConfig) -> None:
    """One rule watches the validation error for all layers and the biases, by what the schedule itself says."""
    own = {f"layers.{layer}": layer_schedule for layer, layer_schedule in schedule.layers.items()}
    if schedule.bias is not None:
        own["bias"] = schedule.bias
        own |= {f"bias.layers.{layer}": layer_schedule for layer, layer_schedule in schedule.bias.layers.items()}
    for name, given in own.items():
        if given.name != "plateau":
            continue
        for key in ("patience_epochs", "min_improvement", "max_drops"):
            value, of_all = getattr(given, key), getattr(schedule, key)
            if value > of_all or (value < of_all and key != "max_drops"):
                raise UserError(
                    f"schedule.{name}.{key} = {value} would have no effect: schedule.{key} = {of_all} decides for all "
                    "layers when rates drop; give both the same value."
                )

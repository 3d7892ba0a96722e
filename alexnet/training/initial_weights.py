"""A network that begins with a trained one's weights: what is copied, what is new, and what it is shown.

The features of the copied layers are, before the first step, exactly those of the checkpoint: the network is the same
layer by layer, and images are brought into the form that the checkpoint was trained on, its mean included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from alexnet.config import MODEL_NAMES, ModelConfig, Recipe
from alexnet.config_io import format_value, load_recipe
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import AlexNet, Difference, compare
from alexnet.models.architecture import Architecture, Dropout, Linear
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.checkpoint_files import checkpoint_files

_SHOWN = 4
_FROM_MODEL = ("dropout", "input_scale", "activation", "pooling", "without")
"""Keys of the section [model] that decide what a network computes, besides its name and its size."""
_NETWORK_KEYS = (
    *("model.name", "model.image_size", *(f"model.{key}" for key in _FROM_MODEL)),
    *("data.image_size", "augment.mean"),
)


@dataclass(frozen=True)
class InitialWeights:
    """The checkpoint that model.init names."""

    name: str
    """As it was given."""
    sha256: str
    """Of the file."""
    checkpoint: Checkpoint


class Copied(NamedTuple):
    """The layers with weights, in the network's order."""

    copied: tuple[str, ...]
    new: tuple[str, ...]


def open_initial_weights(config: ModelConfig) -> InitialWeights:
    """Read the checkpoint of model.init.

    Raises UserError where there is none, and where it is not the file of model.init_sha256.
    """
    assert config.init is not None
    try:
        path, digest = _file_and_digest(config.init, config.init_sha256)
        if config.init_sha256 not in (None, digest):
            raise UserError(
                f"{path} has other contents than when it was first used (SHA-256 {digest}, not {config.init_sha256}). "
                "Give the old file, or begin another run with this one: --init, and a new --output."
            )
        return InitialWeights(config.init, digest, load_checkpoint(path))
    except UserError as error:
        raise UserError(
            f"model.init = {config.init}: {str(error).rstrip('.')}. It names a trained network to begin with, a "
            "checkpoint or a run's folder: --init CHECKPOINT."
        ) from None


def _file_and_digest(name: str, wanted: str | None) -> tuple[Path, str]:
    """The file of a checkpoint's name and its SHA-256; of a run's two files the one that has the wanted SHA-256.

    A run whose model.init is a run's folder may have begun with the best weights, which earlier versions took.
    """
    files = checkpoint_files(name)
    if not files[0].is_file():
        if name == "CHECKPOINT":  # what the recipe `transfer` has in place of a name
            raise UserError("The recipe begins with a trained network; name one with --init.")
        raise UserError(f"There is no file {files[0]}.")
    found = [(file, _sha256(file)) for file in (files if wanted is not None else files[:1])]
    return next((item for item in found if item[1] == wanted), found[0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- the network


def values_of_network(checkpoint: Checkpoint) -> dict[str, Any]:
    """The recipe keys, with dots, that make a network the checkpoint's, and its images those that it was trained on.

    Raises UserError for a network that no recipe describes.
    """
    name = checkpoint.architecture.name
    if name not in MODEL_NAMES:
        raise UserError(
            f"The checkpoint's network, {name!r}, is none of the variants that a recipe can name; there are "
            f"{', '.join(MODEL_NAMES)}."
        )
    trained = checkpoint.recipe.get("model") or {}
    # A checkpoint that came from elsewhere has a recipe that says nothing about its network.
    trained = trained if trained.get("name", "as_run") == name else {}
    model = {key: trained.get(key, ModelConfig.model_fields[key].default) for key in _FROM_MODEL}
    model["without"] = tuple(model["without"])
    is_usual = checkpoint.image_size == checkpoint.architecture.image_size
    return {
        "model.name": name,
        "model.image_size": None if is_usual else checkpoint.image_size,
        **{f"model.{key}": value for key, value in model.items()},
        "data.image_size": checkpoint.preprocessing.image_size,
        "augment.mean": checkpoint.preprocessing.mean_mode,
    }


def recipe_with_init(
    name_or_path: str | Path, overrides: Sequence[str], init: str, saved: Recipe | None = None
) -> tuple[Recipe, str]:
    """A recipe with model.init = `init`, and that checkpoint's network and images where no override says otherwise.

    saved: the recipe of the run that is to go on, where there is one; it stands for a checkpoint that is gone. Also
    returns a sentence with the values that replace the recipe's own; empty where none does. Raises UserError.
    """
    if saved is not None and saved.model.init == init and not Path(init).exists():
        values = {key: _value_of(saved, key) for key in _NETWORK_KEYS}
    else:
        values = values_of_network(open_initial_weights(ModelConfig(init=init)).checkpoint)
    own = load_recipe(name_or_path)
    followed = overrides_of({"model.init": init, "model.init_sha256": None, **values})
    recipe = load_recipe(name_or_path, [*followed, *overrides])
    replaced = [
        f"{key} = {value} in place of {_value_of(own, key)}"
        for key, value in values.items()
        if _value_of(own, key) != value == _value_of(recipe, key)
    ]
    return recipe, f"The network and its images are as in {init}: {', '.join(replaced)}." if replaced else ""


def _value_of(recipe: Recipe, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(recipe, section), name)


def copy_weights(model: AlexNet, initial: InitialWeights, classes: Sequence[str], config: ModelConfig) -> Copied:
    """Give the network of `config` the checkpoint's weights and batch norm statistics, in place.

    The last layer is left as it is unless the checkpoint's classes are `classes`, in this order; so are the layers of
    init_without. Raises UserError, naming the layers, where the two networks do not compute the same or a shape does
    not fit, and for weights that are not finite.
    """
    checkpoint, without = initial.checkpoint, config.init_without
    state = model.state_dict()
    layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in state))
    unknown = [name for name in without if name not in layers]
    if unknown:
        raise UserError(f"model.init_without: {unknown[0]!r} is no layer with weights; there are {', '.join(layers)}.")
    head = head_of(model.architecture)
    new = {*without} | ({head} if tuple(classes) != checkpoint.classes else set())
    _check_same_network(model, initial, new, config)
    wanted = {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in new}
    given = {name: checkpoint.model_state[name] for name in wanted if name in checkpoint.model_state}
    _check_shapes(model, initial, wanted, given)
    broken = [name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise UserError(f"model.init = {initial.name}: {broken[0]} holds nan or inf; take an earlier checkpoint.")
    model.load_state_dict({**state, **given})
    return Copied(tuple(name for name in layers if name not in new), tuple(name for name in layers if name in new))


def head_of(architecture: Architecture) -> str:
    """The name of the layer whose outputs are the classes."""
    return next(layer.name for layer in architecture.layers if isinstance(layer, Linear) and layer.features is None)


def _check_same_network(model: AlexNet, initial: InitialWeights, new: Collection[str], config: ModelConfig) -> None:
    differences = [
        item
        for item in compare(initial.checkpoint.architecture, model.architecture)
        if item.layer not in new and not _is_harmless(item)
    ]
    if not differences:
        return
    told = [_tell(item) for item in differences[:_SHOWN]]
    if len(differences) > _SHOWN:
        told.append(f"{len(differences) - _SHOWN} more")
    raise UserError(
        f"model.init = {initial.name} is {initial.checkpoint.architecture.name}, and the recipe's network is another: "
        f"{'; '.join(told)}. {_remedy(initial.checkpoint, config)}"
    )


def _is_harmless(item: Difference) -> bool:
    """How weights begin, the variant's usual size (shapes tell whether the real one fits), and dropout's rate."""
    return item.field.startswith("initial_") or item.field in ("image_size", "rate")


def _tell(item: Difference) -> str:
    if item.field == "layer":
        there, here = (kind or "none" for kind in (item.a, item.b))
        return f"{item.layer}: {there} there, {here} here"
    return f"{item.layer} {item.field}: {item.a} there, {item.b} here"


def _remedy(checkpoint: Checkpoint, config: ModelConfig) -> str:
    try:
        values = values_of_network(checkpoint)
    except UserError as error:
        return str(error)
    here = {f"model.{key}": value for key, value in config}
    wanted = {key: value for key, value in values.items() if key in here and here[key] != value}
    if not wanted:
        return "No recipe describes the checkpoint's."
    return f"Take the checkpoint's: {' '.join(overrides_of(wanted))} (--init CHECKPOINT sets it, and the sizes)"


def _check_shapes(
    model: AlexNet, initial: InitialWeights, wanted: dict[str, torch.Tensor], given: dict[str, torch.Tensor]
) -> None:
    def shape_of(tensor: torch.Tensor | None) -> str:
        return "none" if tensor is None else " x ".join(map(str, tensor.shape)) or "a number"

    unfit = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    if not unfit:
        return
    told = "; ".join(f"{name}: {shape_of(given.get(name))} there, {shape_of(wanted[name])} here" for name in unfit)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in unfit))
    sizes = ""
    if initial.checkpoint.image_size != model.image_size:
        size = initial.checkpoint.image_size
        sizes = f"The network's input has {size} px there and {model.image_size} here: give model.image_size={size}. "
    raise UserError(
        f"model.init = {initial.name} does not fit this network: {told}. {sizes}Or let these layers begin at random: "
        f"model.init_without={format_value(layers)}"
    )


# ---------------------------------------------------------------- the images


def adapt_preprocessing(before: Preprocessing, recipe: Recipe, crop_size: int) -> Preprocessing:
    """The checkpoint's preprocessing at a run's sizes: its mean, its scale and its order of channels stay.

    The first layer was trained on pixels minus this mean; minus another one, every kernel that is not balanced would
    answer with a constant that was never there. A mean image of another size is resampled.
    """
    size = recipe.data.image_size
    mean = before.mean_image
    if size != before.image_size:
        planes = mean.permute(2, 0, 1)[None]
        resized = F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=True)
        mean = resized[0].permute(1, 2, 0).contiguous()
    return replace(before, image_size=size, crop_size=crop_size, mean_mode=recipe.augment.mean, mean_image=mean)


def size_difference(checkpoint: Checkpoint, recipe: Recipe, crop_size: int) -> str | None:
    """A sentence where the checkpoint was trained at other sizes than a recipe has; None where they are the same."""
    there, here = checkpoint.preprocessing, recipe.data.image_size
    if (there.image_size, there.crop_size) == (here, crop_size):
        return None
    scale = here / there.image_size
    how = "" if scale == 1 else f": what they show is {scale:.3g} times as large to the network"
    return (
        f"The initial weights were trained on squares of {there.image_size} px, cropped to {there.crop_size}; here "
        f"they have {here} px and are cropped to {crop_size}{how}."
    )


def dropout_difference(checkpoint: Checkpoint, model: AlexNet) -> str | None:
    """A sentence where another rate of dropout makes its layers pass on more or less than in the checkpoint.

    With the paper's scaling the rate is a factor of the outputs; with the inverted one it is not.
    """
    rates = {layer.name: layer.rate for layer in checkpoint.architecture.layers if isinstance(layer, Dropout)}
    for layer in model.architecture.layers:
        if isinstance(layer, Dropout) and layer.scaling == "original" and rates[layer.name] != layer.rate:
            factor = (1 - layer.rate) / (1 - rates[layer.name])
            return (
                f"Dropout was {rates[layer.name]:g} there and is {layer.rate:g} here: what {layer.name} passes on is "
                f"{factor:.3g} times as large as the next layer was trained on."
            )
    return None


# ---------------------------------------------------------------- for people


def describe_start(initial: InitialWeights, layers: Copied, frozen: Sequence[str], num_classes: int) -> str:
    """One line: where the weights are from, which layers were copied, which are new, which are frozen."""
    checkpoint = initial.checkpoint
    of_run = "" if checkpoint.selection is None else f"{checkpoint.selection} weights, "
    origin = f"{of_run}step {checkpoint.step:,} of {Path(checkpoint.data).name}"
    if checkpoint.imported is not None:
        origin = f"imported from {checkpoint.imported['file']}"
    parts = [f"{', '.join(layers.copied)} copied"] if layers.copied else []
    if layers.new:
        parts.append(f"{', '.join(layers.new)} new (for {num_classes} classes)")
    else:
        parts[-1] += " (the classes are the same)"
    if frozen:
        parts.append(f"{', '.join(frozen)} frozen")
    return (
        f"Initial weights: {initial.name} ({checkpoint.architecture.name}, {origin}; SHA-256 {initial.sha256[:12]}): "
        f"{'; '.join(parts)}."
    )


def record_of(initial: InitialWeights, layers: Copied, frozen: Sequence[str]) -> dict[str, Any]:
    """The same as plain types, for environment.json."""
    checkpoint = initial.checkpoint
    return {
        "file": initial.name,
        "sha256": initial.sha256,
        "model": checkpoint.architecture.name,
        "data": checkpoint.data,
        "step": checkpoint.step,
        "checkpoint": checkpoint.selection,
        "copied": list(layers.copied),
        "new": list(layers.new),
        "frozen": list(frozen),
    }


def overrides_of(values: dict[str, Any]) -> list[str]:
    """Recipe values by dotted key, as the texts that set them."""
    return [f"{key}={'none' if value is None else format_value(value)}" for key, value in values.items()]

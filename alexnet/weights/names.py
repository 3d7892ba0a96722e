"""Names of weights: what wrappers add to them, and torchvision's against ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES

Value = TypeVar("Value")

# torchvision numbers the places of an nn.Sequential (torchvision/models/alexnet.py).
TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
_OURS = {theirs: ours for ours, theirs in TORCHVISION.items()}
# Added to names by DataParallel and DDP, by torch.compile, and by FSDP and activation checkpointing.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_ROOTS = {"features", "classifier", *(layer.name for record in ARCHITECTURES.values() for layer in record.layers)}


def to_torchvision(name: str) -> str:
    """torchvision's name of one of our weights: conv1.weight -> features.0.weight."""
    layer, _, part = name.partition(".")
    return f"{TORCHVISION[layer]}.{part}"


def unwrapped(weights: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, str]]:
    """The weights without what wrappers added to their names, and what each was called before.

    module.features.0.weight, features.module.0.weight, _orig_mod.features.0.weight and model.features.0.weight all
    become features.0.weight. Raises UserError where two of them become one.
    """
    names = {key: ".".join(part for part in key.split(".") if part not in _WRAPPERS) for key in weights}
    while True:
        roots = {name.partition(".")[0] for name in names.values()}
        if len(roots) != 1 or roots & _ROOTS or not all("." in name for name in names.values()):
            break
        names = {key: name.partition(".")[2] for key, name in names.items()}
    before = {name: key for key, name in names.items()}
    if len(before) < len(names):
        twice = next(key for key, name in names.items() if before[name] != key)
        raise UserError(f"The file has {names[twice]} twice: as {twice} and as {before[names[twice]]}.")
    return {name: weights[key] for name, key in before.items()}, before


def ours(weights: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, str]] | None:
    """The weights under our names, and torchvision's name of each; None where these are no names of torchvision's."""
    renamed, names = {}, {}
    for key, value in weights.items():
        place, _, part = key.rpartition(".")
        if place not in _OURS:
            return None
        renamed[f"{_OURS[place]}.{part}"] = value
        names[f"{_OURS[place]}.{part}"] = key
    return renamed, names


def are_ours(weights: Mapping[str, Value]) -> bool:
    """Whether the weights have names that a network of this package has."""
    layers = {key.partition(".")[0] for key in weights}
    return bool(layers) and any(
        layers <= {layer.name for layer in architecture.layers} for architecture in ARCHITECTURES.values()
    )

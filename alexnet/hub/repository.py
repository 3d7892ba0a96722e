"""A checkpoint as the files of a repository: the weights, which describe themselves, and a description for others.

model.safetensors is all that this package reads; config.json says the same of the network, the classes and the inputs
to other programs, and README.md is the card (card.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from alexnet.errors import UserError
from alexnet.runtime.files import write_text
from alexnet.runtime.text import json_text
from alexnet.training.checkpoint import Checkpoint
from alexnet.weights.safetensors_file import find_safetensors_weights, write_safetensors

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = (WEIGHTS, CONFIG, CARD)
PLACEHOLDER = "USER/NAME"
"""On a card that does not know yet where it will be."""
_OF_THE_MACHINE = ("command",)
"""What environment.json knows and nobody else needs to."""


def write_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Write model.safetensors and config.json into a folder, without what is only of this machine.

    Raises RunError when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = shareable(checkpoint)
    write_safetensors(checkpoint, folder / WEIGHTS)
    write_text(folder / CONFIG, json_text(describe(checkpoint)) + "\n")


def read_weights(path: Path) -> Checkpoint:
    """The checkpoint of a safetensors file that this package wrote.

    Raises UserError where there is none, it is damaged, or another program wrote it.
    """
    if not path.is_file():
        raise UserError(f"There is no {path.name} in {path.parent}; give a folder that `alexnet push` wrote.")
    found = find_safetensors_weights(path)
    if not isinstance(found, Checkpoint):
        raise UserError(
            f"{path} was written by another program and does not say what its network is; `alexnet import {path}` "
            "makes a checkpoint of it."
        )
    return found


def shareable(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without paths of this machine and the command; what training goes on with is left out, too."""
    environment = {key: value for key, value in checkpoint.environment.items() if key not in _OF_THE_MACHINE}
    if "init" in environment:
        init = environment["init"]
        environment["init"] = {**init, "file": _last_part(init["file"]), "data": _last_part(init["data"])}
    recipe = checkpoint.recipe
    if (recipe.get("model") or {}).get("init"):
        recipe = {**recipe, "model": {**recipe["model"], "init": _last_part(recipe["model"]["init"])}}
    return replace(
        checkpoint, data=_last_part(checkpoint.data), recipe=recipe, environment=environment, training_state=None
    )


def _last_part(path: str) -> str:
    """photos of /home/ada/photos; what names a repository of the Hub stays whole."""
    if path.startswith("hf:"):
        return path
    if "://" in path:  # what follows the "?" of an address may be a key
        path = path.partition("?")[0]
    return PurePath(path.replace("\\", "/")).name


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The contents of config.json, plain types."""
    preprocessing = checkpoint.preprocessing.to_dict()
    mean = preprocessing.pop("mean_image")
    return {
        "library_name": "alexnet",
        "architectures": ["AlexNet"],
        "model_type": checkpoint.architecture.name,
        "architecture": checkpoint.architecture.to_dict(),
        "num_classes": checkpoint.num_classes,
        "image_size": checkpoint.image_size,
        "id2label": {str(number): name for number, name in enumerate(checkpoint.class_names)},
        "classes": list(checkpoint.classes),
        "preprocessing": {**preprocessing, "mean_rgb": mean.mean(dim=(0, 1)).tolist()},
    }


def file_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files of a repository that are there."""
    facts = {}
    for name in FILES:
        path = folder / name
        if path.is_file():
            facts[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return facts


def sha256_of(path: Path) -> str:
    """Of a file's contents, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""safetensors: read from anywhere, and written so that the file describes itself.

A file written here has the weights under our names and, in its header under "alexnet", everything else that a
checkpoint knows, as JSON. It can be loaded by anything that reads safetensors, and `alexnet import` makes the same
checkpoint of it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import Architecture
from alexnet.runtime.files import write_atomically
from alexnet.training.checkpoint import Checkpoint
from alexnet.weights.fit import check_fit
from alexnet.weights.found import Found
from alexnet.weights.inputs import LARGEST_SIDE
from alexnet.weights.state import find_in_state

_HEADER = "alexnet"
_FORMAT, _VERSION = "alexnet-weights", 1
_MEAN_IMAGE = "preprocessing.mean_image"
_AS_THEY_ARE = ("num_classes", "image_size", "recipe", "data", "step", "epoch", "metrics", "environment")


def write_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Write the weights and the description of a checkpoint, atomically; what training goes on with is left out.

    A mean image is the additional tensor preprocessing.mean_image (S, S, 3); a mean of three numbers is in the header,
    and then the tensors are those of the network and no others. Raises RunError when the disk is full.
    """
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.model_state.items()}
    preprocessing = checkpoint.preprocessing.to_dict()
    mean = preprocessing.pop("mean_image")
    if torch.equal(mean, mean[:1, :1].expand_as(mean)):
        preprocessing["mean"] = mean[0, 0].tolist()
    else:
        tensors[_MEAN_IMAGE] = mean.contiguous()
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "architecture": checkpoint.architecture.to_dict(),
        "classes": list(checkpoint.classes),
        "class_names": list(checkpoint.class_names),
        "preprocessing": preprocessing,
        **{name: getattr(checkpoint, name) for name in _AS_THEY_ARE},
        "selection": checkpoint.selection,
    }
    # "format" is what other readers look for.
    header = {"format": "pt", _HEADER: json.dumps(description)}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_atomically(path, lambda file: file.write(save(tensors, metadata=header)), size)


def find_safetensors_weights(path: Path) -> Found | Checkpoint:
    """The weights of a safetensors file, or the whole checkpoint where this package wrote it.

    Raises UserError for a damaged file, for weights whose names are not known, and for a description of another
    network than the weights are of.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except PermissionError:
        raise UserError(f"Cannot read {path}: permission denied.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if _HEADER not in header:
        return find_in_state(tensors, path.name, "a safetensors file")
    try:
        checkpoint = _checkpoint(json.loads(header[_HEADER]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{path} says that this package wrote it, but its description is damaged ({error}).") from None
    check_fit(checkpoint, path.name)
    return checkpoint


def _checkpoint(description: Mapping[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    if description["format"] != _FORMAT or description["version"] != _VERSION:
        raise ValueError(f"it is {description['format']} {description['version']}, not {_FORMAT} {_VERSION}")
    preprocessing = dict(description["preprocessing"])
    size = int(preprocessing["image_size"])
    if not 0 < size <= LARGEST_SIDE:
        raise ValueError(f"squares of {size:,} pixels")
    mean = tensors.pop(_MEAN_IMAGE, None)
    if mean is None:
        mean = torch.tensor(preprocessing.pop("mean"), dtype=torch.float32).expand(size, size, 3).contiguous()
    checkpoint = Checkpoint(
        architecture=Architecture.from_dict(description["architecture"]),
        classes=tuple(description["classes"]),
        class_names=tuple(description["class_names"]),
        preprocessing=Preprocessing.from_dict({**preprocessing, "mean_image": mean}),
        model_state=tensors,
        training_state=None,
        **{name: description[name] for name in _AS_THEY_ARE},
        selection=description.get("selection"),
    )
    return checkpoint.checked()

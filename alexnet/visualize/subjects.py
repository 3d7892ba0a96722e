"""What can be asked about: classes by their position in the outputs, layers that have maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alexnet.errors import UserError
from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet, Architecture
from alexnet.models.architecture import BatchNorm, Convolution, Linear, Local, ReLU, SiLU, Tanh


def classes_asked_for(model: AlexNet, inputs: Tensor, class_index: int | Sequence[int] | None) -> Tensor:
    """(K,) int64 on the inputs' device: one class for each of the inputs, or several of a single one.

    class_index: the position of the class in the outputs, for all inputs or one for each; None takes the best guess of
    each. Raises UserError for a class that does not exist and for another number of classes than of inputs.
    """
    if class_index is None:
        with evaluation_mode([model]), torch.inference_mode():
            best = model(inputs).argmax(dim=1)
        return best.clone()  # outside of inference mode it may be indexed with in a graph
    classes = [class_index] * len(inputs) if isinstance(class_index, int) else [int(item) for item in class_index]
    for item in classes:
        if not 0 <= item < model.num_classes:
            raise UserError(f"There is no class {item}; the network's classes are 0 to {model.num_classes - 1}.")
    if len(inputs) not in (1, len(classes)):
        raise UserError(f"{len(classes)} classes are asked for of {len(inputs)} images; give one for each image.")
    return torch.tensor(classes, dtype=torch.int64, device=inputs.device)


def repeated(inputs: Tensor, count: int) -> Tensor:
    """A single input `count` times, without copying it; as many inputs stay as they are."""
    return inputs.expand(count, *inputs.shape[1:]) if len(inputs) == 1 else inputs


def map_layers(architecture: Architecture) -> list[str]:
    """The layers whose outputs are maps, in order: those before the first fully-connected one."""
    layers = architecture.layers
    end = next((i for i, layer in enumerate(layers) if isinstance(layer, Linear)), len(layers))
    return [layer.name for layer in layers[:end]]


def last_maps(architecture: Architecture) -> str:
    """The last convolution with the activation after it: the finest maps that still see whole parts of objects."""
    layers = architecture.layers
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, Convolution | Local))
    while isinstance(layers[last + 1], BatchNorm | ReLU | Tanh | SiLU):
        last += 1
    return layers[last].name


def check_has_maps(architecture: Architecture, layer: str) -> None:
    """Raises UserError for a layer that has no maps, or does not exist."""
    names = map_layers(architecture)
    if layer not in names:
        exists = layer in [record.name for record in architecture.layers]
        what = f"layer {layer} of {architecture.name} has no maps" if exists else f"has no layer {layer!r}"
        subject = "" if exists else f"{architecture.name} "
        raise UserError(f"{subject}{what}; its layers with maps are {', '.join(names)}.")

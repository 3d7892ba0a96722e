"""A checkpoint of the variant `torchvision` as the file that torchvision's own alexnet loads."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

from alexnet.errors import UserError
from alexnet.models import Architecture, get_architecture
from alexnet.models.changes import with_dropout
from alexnet.runtime.files import write_atomically
from alexnet.training.checkpoint import Checkpoint
from alexnet.weights.names import TORCHVISION, to_torchvision


def write_torchvision(checkpoint: Checkpoint, path: Path) -> None:
    """Write the weights under torchvision's names, atomically: a state dict and nothing else.

    torchvision.models.alexnet(num_classes=N).load_state_dict(torch.load(path)) takes it. Raises UserError for a network
    that torchvision does not have, RunError when the disk is full.
    """
    architecture = checkpoint.architecture
    if not _is_torchvisions(architecture):
        raise UserError(
            f"torchvision has no {architecture.name}: its alexnet is the network of 2014 (`alexnet info "
            f"{architecture.name} torchvision` shows what differs). Export to safetensors, ONNX or .pt2 instead."
        )
    names = [f"{layer}.{part}" for layer in TORCHVISION for part in ("weight", "bias")]
    state = OrderedDict((to_torchvision(name), checkpoint.model_state[name].contiguous()) for name in names)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    write_atomically(path, lambda file: torch.save(state, file), size)


def _is_torchvisions(architecture: Architecture) -> bool:
    """Whether the layers are torchvision's, whatever the dropout rate, which is no part of its weights."""
    theirs = get_architecture("torchvision")
    return with_dropout(architecture, 0.0).layers == with_dropout(theirs, 0.0).layers

"""How much memory a training step takes, from the table of layers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from alexnet.config import Recipe
from alexnet.data.squares import free_memory_bytes
from alexnet.errors import UserError
from alexnet.models import AlexNet
from alexnet.models.summary import layer_table

_TRANSIENT_OUTPUTS = 2
"""Backward holds the gradients of a layer's output and input beside the stored outputs."""


_USED_SHARE = 0.8
"""Of the free memory; the rest is for the loader and for what the estimate leaves out."""


class StepMemory(NamedTuple):
    """Bytes of one training step."""

    weights: int
    """Weights, velocities and gradients, averages and working copies included."""
    per_image: int
    """Stored outputs for one image, and the largest gradients."""
    images: int
    """Images that are in the network at once: the micro-batch, or the whole batch."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.per_image * self.images

    def largest_batch(self, available: int) -> int:
        """The largest power of two that fits; 0 where not even one image does."""
        fitting = (available - self.weights) // self.per_image
        return 0 if fitting < 1 else 2 ** int(math.log2(fitting))


def step_memory(recipe: Recipe, model: AlexNet, dtype: torch.dtype) -> StepMemory:
    """An estimate from shapes alone; docs/doctor.md compares it with what was measured.

    The output of every stage is kept for the backward pass. What a block makes inside (ReLU, norm) is computed again.
    """
    rows = layer_table(model.architecture, model.num_classes, model.image_size)
    kept = {stage.names[-1] for stage in model.stages()}
    outputs = [math.prod(row.output_shape) for row in rows if row.name in kept]
    bytes_of_value = dtype.itemsize
    parameters = sum(row.parameters for row in rows)
    copies = 3 * 4 + (4 if recipe.train.ema_decay else 0) + (2 * 2 if dtype == torch.bfloat16 else 0)
    per_image = bytes_of_value * (sum(outputs) + _TRANSIENT_OUTPUTS * max(outputs) + 3 * model.image_size**2)
    micro = recipe.train.micro_batch_size
    images = recipe.train.batch_size if micro in (None, "auto") else min(micro, recipe.train.batch_size)
    return StepMemory(parameters * copies, per_image, images)


def choose_micro_batch(
    recipe: Recipe, model: AlexNet, dtype: torch.dtype, available: int, num_images: int
) -> int | None:
    """Of the `num_images` that a process has of a batch, how many to compute at once; None: all of them fit.

    available: bytes. A network with batch norm gets all, since parts of a batch would be normalised by themselves.
    Raises UserError where not even one image fits.
    """
    memory = step_memory(recipe, model, dtype)
    room = int(_USED_SHARE * available)
    if model.architecture.has_batch_norm or memory.weights + memory.per_image * num_images <= room:
        return None
    fits = memory.largest_batch(room)
    if not fits:
        raise UserError(
            f"train.micro_batch_size = auto: not even one image at a time fits; a step of {recipe.model.name} needs "
            f"{(memory.weights + memory.per_image) / 2**30:.1f} GB, and {available / 2**30:.1f} GB are free."
        )
    return fits


def available_bytes(device: torch.device) -> int:
    """Memory that a step can still take there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory_bytes()

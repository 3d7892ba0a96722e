"""How much memory a training step takes, from the table of layers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from alexnet.config import Recipe
from alexnet.data.squares import free_memory_bytes
from alexnet.models import AlexNet
from alexnet.models.summary import layer_table

_TRANSIENT_OUTPUTS = 2
"""Backward holds the gradients of a layer's output and input beside the stored outputs."""


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
    kept = {stage.names[-1] for stage in model.stages}
    outputs = [math.prod(row.output_shape) for row in rows if row.name in kept]
    bytes_of_value = dtype.itemsize
    parameters = sum(row.parameters for row in rows)
    copies = 3 * 4 + (4 if recipe.train.ema_decay else 0) + (2 * 2 if dtype == torch.bfloat16 else 0)
    per_image = bytes_of_value * (sum(outputs) + _TRANSIENT_OUTPUTS * max(outputs) + 3 * model.image_size**2)
    images = min(recipe.train.micro_batch_size or recipe.train.batch_size, recipe.train.batch_size)
    return StepMemory(parameters * copies, per_image, images)


def available_bytes(device: torch.device) -> int:
    """Memory that a step can still take there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory_bytes()

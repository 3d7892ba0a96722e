"""Frozen layers: what a learning rate of 0 means, and which layers have it from the first step on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from alexnet.config import Recipe


def freeze_by_rate(model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Let what has a learning rate of 0 at this step cost no gradient; a frozen batch norm keeps its statistics.

    Below the first layer that learns nothing is computed backward at all. To be called in training mode, before each
    step: a schedule may freeze a layer later (S layer-params-145.cfg freezes conv1 at epoch 72). Returns whether the
    frozen parameters are others than before.
    """
    changed = False
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            learns = group["lr"] != 0
            changed |= parameter.requires_grad != learns
            parameter.requires_grad_(learns)
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and not any(weight.requires_grad for weight in layer.parameters()):
            layer.eval()
    return changed


def is_frozen_from_the_start(recipe: Recipe, layer: str, copied: Collection[str] = ()) -> bool:
    """Whether a recipe gives a layer a rate of 0 from the first step on; `copied`: layers that model.init has given."""
    own = recipe.optimizer.layers.get(layer)
    if own is not None and own.lr_factor == 0:
        return True
    if layer in copied and recipe.optimizer.copied_lr_factor == 0:
        return True
    schedule = recipe.schedule.layers.get(layer, recipe.schedule)
    return schedule.freeze_epoch == 0 or (
        schedule.name == "steps" and (0.0, 0.0) in zip(schedule.milestones, schedule.factors, strict=True)
    )

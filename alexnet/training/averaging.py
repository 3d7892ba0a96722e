"""The exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """`average <- decay * average + (1 - decay) * weights` after every step; buffers are the network's own.

    Early on the decay is (1 + n) / (10 + n) for the n-th update where that is smaller, so that the average forgets the
    initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        # So they follow whatever changes them: a training batch, or what the processes agree on.
        shared = {id(buffer): buffer for buffer in model.buffers()}
        self.model = copy.deepcopy(model, shared).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int) -> None:
        """Take in the weights after update number `num_updates` (1, 2, ...)."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)

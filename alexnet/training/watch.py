"""The watch over a training loss: whether it stays where guessing would put it, and why.

It sees nothing but the numbers that the log reads anyway, so it costs nothing until it has something to say.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from alexnet.config import Recipe
from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.models import AlexNet
from alexnet.training.signals import Cause, find_cause, measure_signals, slow_start

TOLERANCE = 0.02
"""A loss less than 2 % below that of guessing counts as no better than guessing."""
MIN_PATIENCE_STEPS = 300
MAX_PATIENCE_STEPS = 5000
MIN_SHORT_RUN_STEPS = 100
_NUM_IMAGES = 16


def guessing_loss(labels: np.ndarray, num_classes: int, label_smoothing: float = 0.0) -> float:
    """The lowest loss, in nats, of a network that does not look at its images: ln C where classes are equally common.

    It gives every image the classes' shares (smoothed as the labels are), so its loss is their entropy.
    """
    shares = np.bincount(labels, minlength=num_classes) / max(len(labels), 1)
    shares = (1 - label_smoothing) * shares + label_smoothing / num_classes
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def patience_steps(num_steps: int, epochs_per_step: float) -> int:
    """How many steps a loss may stay at guessing before that is worth a word.

    An epoch, within 300 to 5,000 steps: the recipes here leave it within 40 (digits) to 100 steps (CIFAR), Caffe's
    initial values take 170 on digits, and ImageNet's thousand classes are given half an epoch. In a run too short for
    that, half of the run, at least 100.
    """
    epoch = min(max(1 / epochs_per_step, MIN_PATIENCE_STEPS), MAX_PATIENCE_STEPS)
    return math.ceil(min(epoch, max(num_steps / 2, MIN_SHORT_RUN_STEPS)))


@dataclass(frozen=True)
class Stuck:
    """A loss that is no better than guessing."""

    loss: float
    """Mean over the last num_steps steps."""
    num_steps: int
    guessing_loss: float

    def describe(self, num_classes: int) -> str:
        """One sentence with the numbers."""
        return (
            f"The loss has been {self.loss:.4f} over the last {self.num_steps} steps, no better than guessing "
            f"({self.guessing_loss:.4f} for these classes; ln {num_classes} = {math.log(num_classes):.4f})"
        )


class LossWatch:
    """Takes in the mean losses of stretches of steps; says once when they have stayed at guessing for too long.

    It speaks again only after the loss has been better in between. Steps up to `start_step` (the warm-up) do not count.
    """

    def __init__(self, guessing: float, patience: int, start_step: int = 0) -> None:
        self.guessing = guessing
        self.patience = patience
        self.start_step = start_step
        self._stretches: deque[tuple[int, float]] = deque()
        self._told = False

    def observe(self, step: int, num_steps: int, loss: float) -> Stuck | None:
        """The mean loss of the `num_steps` steps that end at `step`; a Stuck where it is time to say so."""
        if step - num_steps < self.start_step:
            return None
        self._stretches.append((num_steps, loss * num_steps))
        # The oldest stretch goes when the others are long enough without it.
        while sum(steps for steps, _ in self._stretches) - self._stretches[0][0] >= self.patience:
            self._stretches.popleft()
        steps = sum(count for count, _ in self._stretches)
        mean = sum(total for _, total in self._stretches) / steps
        if mean < (1 - TOLERANCE) * self.guessing:
            self._told = False
            return None
        if steps < self.patience or self._told or self._is_falling():
            return None
        self._told = True
        return Stuck(mean, steps, self.guessing)

    @property
    def is_told(self) -> bool:
        """Whether the loss has been told to be stuck and has not been better since."""
        return self._told

    def _is_falling(self) -> bool:
        """Whether the later half of the stretches is clearly below the earlier one: learning has begun, if late."""
        half = len(self._stretches) // 2
        stretches = list(self._stretches)
        if half == 0:
            return False
        earlier, later = (
            sum(total for _, total in part) / sum(steps for steps, _ in part)
            for part in (stretches[:half], stretches[half:])
        )
        return later < earlier - TOLERANCE * self.guessing


def watch_for(recipe: Recipe, labels: np.ndarray, num_classes: int, num_steps: int) -> LossWatch:
    """The watch of a run of `num_steps` steps on training images with these labels."""
    epochs_per_step = recipe.train.batch_size / len(labels)
    return LossWatch(
        guessing_loss(labels, num_classes, recipe.train.label_smoothing),
        patience_steps(num_steps, epochs_per_step),
        math.ceil(recipe.schedule.warmup_epochs / epochs_per_step),
    )


NO_CAUSE = Cause(
    "no-cause-found",
    "the activations and gradients look sound, so the labels may not follow the images, or the rate is wrong",
    "look at a few images with their labels (alexnet doctor DATA), and try optimizer.lr ten times lower and higher",
)


def explain(model: AlexNet, batch: Batch, preprocessing: Preprocessing, dtype: torch.dtype, lr: float) -> Cause:
    """Why this network does not learn, from its signals on a few images of a batch; changes nothing."""
    device = next(model.parameters()).device
    rows = slice(0, _NUM_IMAGES)
    try:
        images = batch.images(rows, preprocessing, device, dtype)
        signals = measure_signals(model, images, batch.labels[rows].to(device))
    except torch.OutOfMemoryError:  # the run goes on; only the explanation is lost
        return NO_CAUSE
    return find_cause(signals, model.architecture.input_scale, lr) or slow_start(signals) or NO_CAUSE


def describe_divergence(step: int, losses: list[float], lr: float) -> str:
    """What to say of a loss that is not finite: `losses` are the finite ones before it, oldest first."""
    how = "it was not finite from the start of this stretch of the log"
    if losses:
        low, last = min(losses), losses[-1]
        rose = last > 2 * low + 1
        how = f"it rose from {low:.4g} to {last:.4g} first" if rose else f"it was {last:.4g} one step before"
    return f"The loss is not finite at step {step}: the training diverged ({how}; the learning rate was {lr:g})."

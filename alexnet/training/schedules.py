"""Learning rates over time: pure functions of the progress, and the plateau rule as the one stateful exception."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from alexnet.config import LayerScheduleConfig, ScheduleConfig


@dataclass(frozen=True)
class Progress:
    """Where a step stands in the run."""

    epoch: float
    """Epochs seen before the step (fractional)."""
    fraction: float
    """The middle of the step as a share of the run: in (0, 1)."""
    drops: int = 0
    """How often the plateau rule has dropped the rate so far."""


def rate_factor(schedule: LayerScheduleConfig, progress: Progress) -> float:
    """The factor on a base learning rate at one step. Zero means frozen: the update is skipped."""
    if schedule.freeze_epoch is not None and progress.epoch >= schedule.freeze_epoch:
        return 0.0
    if schedule.name == "steps":
        passed = [
            factor for at, factor in zip(schedule.milestones, schedule.factors, strict=True) if at <= progress.epoch
        ]
        return passed[-1] if passed else 1.0
    if schedule.name == "dexp":
        return discrete_exponential(progress.fraction, schedule.target_factor, schedule.num_levels)
    if schedule.name == "cosine":
        low = schedule.final_factor
        return low + (1 - low) * (1 + math.cos(math.pi * progress.fraction)) / 2
    if schedule.name == "poly":
        return (1 - progress.fraction) ** schedule.power
    if schedule.name == "plateau":
        return schedule.drop_factor ** min(progress.drops, schedule.max_drops)
    return 1.0


def discrete_exponential(fraction: float, target_factor: float, num_levels: int) -> float:
    """The 2012 code's `dexp` (S src/lr.cu): equal stretches whose rates fall geometrically to 1/target_factor.

    dexp(0.01, 250, 4) is 0.01, 0.0015874, 0.00025198, 0.00004 on (0, .25], (.25, .5], (.5, .75], (.75, 1].
    """
    if num_levels == 1:
        return 1.0
    level = min(num_levels - 1, max(0, math.ceil(fraction * num_levels) - 1))
    return target_factor ** (-level / (num_levels - 1))


def warmup_factor(schedule: ScheduleConfig, progress: Progress, epochs_per_step: float) -> float:
    """Rises linearly over the warm-up; 1 from its end on. The first step already has a rate above zero."""
    if schedule.warmup_epochs <= 0:
        return 1.0
    start = schedule.warmup_start_factor
    return min(1.0, start + (1 - start) * (progress.epoch + epochs_per_step) / schedule.warmup_epochs)


@dataclass
class PlateauRule:
    """The paper's rule (section 5) without the human: drop the rate when the validation error stops improving."""

    best_error: float = math.inf
    evaluations_since_best: int = 0
    drops: int = 0

    def observe(self, error: float, schedule: LayerScheduleConfig) -> bool:
        """Take in a validation error (a fraction); returns whether the rate drops now."""
        if error < self.best_error - schedule.min_improvement:
            self.best_error = error
            self.evaluations_since_best = 0
            return False
        self.evaluations_since_best += 1
        if self.evaluations_since_best < schedule.patience_epochs or self.drops >= schedule.max_drops:
            return False
        self.drops += 1
        self.evaluations_since_best = 0
        return True

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the checkpoint."""
        return asdict(self)

"""How fast a network learns: the epochs until the error on its own training images falls to a target (Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from alexnet.reporting.run_record import RunRecord


class Curve(NamedTuple):
    """The error of the training images over the epochs, each value over the batches since the one before."""

    epochs: list[float]
    errors: list[float]
    """Fractions."""


def training_curve(run: RunRecord) -> Curve:
    """The training error of a run at each of its evaluations."""
    events = [event for event in run.events_of("evaluation") if "train_top1_error" in event]
    return Curve([event["epoch"] for event in events], [event["train_top1_error"] for event in events])


def epochs_to(curve: Curve, target: float) -> float | None:
    """The epoch at which the error first is `target`, between two values by a straight line; None if never."""
    before_epoch, before = 0.0, 1.0
    for epoch, error in zip(curve.epochs, curve.errors, strict=True):
        if error <= target:
            return before_epoch + (epoch - before_epoch) * (before - target) / (before - error)
        before_epoch, before = epoch, error
    return None


def fastest(reached: Sequence[tuple[Any, float | None]]) -> tuple[Any, float | None]:
    """The setting that reached its target first, of (setting, epochs); settings that never did come last."""
    return min(reached, key=lambda item: (item[1] is None, item[1] if item[1] is not None else 0.0))

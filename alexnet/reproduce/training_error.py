"""How fast a network learns: the epochs until the error on its own training images falls to a target (Figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from alexnet.reporting.run_record import RunRecord

Setting = TypeVar("Setting")


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


def fastest(tried: Sequence[tuple[Setting, Curve]], target: float) -> tuple[Setting, Curve]:
    """The setting whose error fell to the target first; where none did, the one whose last error is the lowest."""

    def slowness(item: tuple[Setting, Curve]) -> tuple[bool, float]:
        epochs = epochs_to(item[1], target)
        return (False, epochs) if epochs is not None else (True, item[1].errors[-1] if item[1].errors else math.inf)

    return min(tried, key=slowness)

"""How fast a network learns: the epochs until the error on its own training images falls to a target (Figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from alexnet.reporting.run_record import RunRecord

Setting = TypeVar("Setting")


class Curve(NamedTuple):
    """The error of the training images over the epochs, each value a mean over the batches since the one before."""

    epochs: list[float]
    errors: list[float]
    """Fractions."""


def training_curve(run: RunRecord) -> Curve:
    """The training error of a run at each of its evaluations."""
    events = [event for event in run.events_of("evaluation") if "train_top1_error" in event]
    return Curve([event["epoch"] for event in events], [event["train_top1_error"] for event in events])


def at_the_middle(curve: Curve) -> Curve:
    """Return the curve with each value at the middle of the batches that it is a mean over.

    The network changes while the mean is taken: a mean over the epoch that ends at e is about the network of e - 0.5.
    """
    before = [0.0, *curve.epochs[:-1]]
    return Curve([(start + end) / 2 for start, end in zip(before, curve.epochs, strict=True)], curve.errors)


class Stretch(NamedTuple):
    """The training images between two evaluations, as the network saw them."""

    loss: float
    """Mean, nats."""
    error: float
    """Top-1, a fraction."""
    first_step: int
    last_step: int


def stretch_before(run: RunRecord, epoch: float) -> Stretch | None:
    """Return the means over the steps that end with the first evaluation at or after `epoch`; None without one."""
    evaluations = run.events_of("evaluation")
    place = next((i for i, event in enumerate(evaluations) if event["epoch"] >= epoch - 1e-9), None)
    if place is None:
        return None
    start = evaluations[place - 1]["step"] if place else 0
    end = evaluations[place]["step"]
    # An evaluation always ends a line of the log, so that the lines between two of them are about their steps alone.
    lines, before = [], start
    for event in run.events_of("step"):
        if start < event["step"] <= end:
            lines.append((event["step"] - before, event["loss"], event["top1_error"]))
            before = event["step"]
    loss, error = (sum(line[0] * line[i] for line in lines) / (end - start) for i in (1, 2))
    return Stretch(loss, error, start + 1, end)


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

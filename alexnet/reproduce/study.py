"""What a study is: something of the paper that can be done again, and what it came to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alexnet.reproduce.workbench import Workbench

Status = Literal["matched", "differs", "measured", "not run"]


@dataclass(frozen=True)
class Row:
    """One quantity: what was published, and what came out here for each seed."""

    quantity: str
    unit: str
    """Of all the values: "%", "points" (of percent), "nats", "epochs", "steps", "times", or "" for a pure number."""
    protocol: str
    """Which images, which views, which weights: what one has to know to compare the number with another."""
    values: Mapping[int, float]
    """Seed -> value. A quantity without a seed has the key 0. Empty where `not_run` says why."""
    published: float | None = None
    published_source: str = ""
    tolerance: float | None = None
    """How far the mean may be from the published value to count as the same; None where nobody has said."""
    not_run: str = ""
    """Why there is no value of ours, without a full stop."""
    at_least: bool = False
    """Whether values are lower bounds: what they count had not come to its end everywhere when the counting stopped."""

    def __post_init__(self) -> None:
        assert bool(self.values) != bool(self.not_run), "either values or the reason why there are none"

    @property
    def mean(self) -> float | None:
        """None where nothing was run."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """Largest minus smallest value; None where nothing was run."""
        return max(self.values.values()) - min(self.values.values()) if self.values else None

    @property
    def status(self) -> Status:
        if self.mean is None:
            return "not run"
        if self.published is None or self.tolerance is None:
            return "measured"
        return "matched" if abs(self.mean - self.published) <= self.tolerance else "differs"

    def to_dict(self) -> dict[str, Any]:
        """The row as plain types, with its mean, spread and status."""
        return {
            "quantity": self.quantity,
            "unit": self.unit,
            "protocol": self.protocol,
            "published": self.published,
            "published_source": self.published_source,
            "tolerance": self.tolerance,
            "values": {str(seed): value for seed, value in sorted(self.values.items())},
            "mean": self.mean,
            "spread": self.spread,
            "status": self.status,
            "not_run": self.not_run,
            "at_least": self.at_least,
        }


@dataclass(frozen=True)
class Outcome:
    """What a study came to."""

    rows: tuple[Row, ...]
    figures: tuple[str, ...] = ()
    """Names of picture files in the study's folder."""
    notes: tuple[str, ...] = ()
    """Sentences that belong to the numbers: what differs from the original, what was seen."""


@dataclass(frozen=True)
class Study:
    """Something of the paper that can be done again."""

    name: str
    title: str
    section: str
    """Where the paper, or its author's code, has it."""
    data: str
    """The images it needs, for people."""
    cost: str
    """What it takes, with the machine this was measured on; says so where it was not measured."""
    run: Callable[[Workbench], Outcome]
    seeds: tuple[int, ...] = (0,)
    """The seeds it is run with unless others are asked for."""
    default_data: str | None = None
    """The built-in data set it runs on where none is named."""
    takes_checkpoint: bool = False
    """Whether it can be given a trained network (`--checkpoint`) in place of training one."""
    sets: tuple[str, ...] = ()
    """Keys of recipes, and sections, that are the study's own to set: its rows say what they were."""
    small: str | None = None
    """What `--scale small` changes, for people; None where the study has no small form."""

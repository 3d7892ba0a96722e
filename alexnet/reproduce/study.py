"""What a study is: something of the paper that can be done again, and what it came to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from alexnet.evaluation.metrics import wilson_interval

if TYPE_CHECKING:
    from alexnet.reproduce.workbench import Workbench

Status = Literal[
    "matched", "differs", "measured", "not run", "size consistent", "sign shown", "not resolved", "contradicted"
]
"""The verdict of a row; `Row.status` defines each."""


class Interval(NamedTuple):
    """A 95 % confidence interval, in the unit of its row."""

    low: float
    high: float
    over: Literal["seeds", "images"]
    """What was sampled. "seeds": Student's t, the mean over other seeds on the same images. "images": Wilson's, the
    error of this one network on other images."""


def interval_over_seeds(values: Collection[float]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the mean over seeds, by Student's t.

    mean +- t * s / sqrt(n), where n is the number of seeds, s the sample standard deviation (divisor n - 1) and t the
    97.5 % quantile of Student's t distribution with n - 1 degrees of freedom: 12.71 for two seeds, 4.30 for three.

    Args:
        values: One value for each seed.

    Returns:
        The two ends, or None for fewer than two values.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # scikit-learn depends on scipy; the import takes a moment

    mean, count = statistics.fmean(values), len(values)
    half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count)
    return mean - half, mean + half


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
    """How far the mean may be from the published value to count as the same; None if no tolerance is stated, and always
    None for a difference."""
    not_run: str = ""
    """Why there is no value of ours, without a full stop."""
    at_least: bool = False
    """Whether values are lower bounds: what they count had not come to its end everywhere when the counting stopped."""
    num_images: int | None = None
    """For an error rate in percent: the number of images that each value is a share of."""
    is_difference: bool = False
    """Whether each value is the difference of two measurements with the same seed, so that 0 means no effect."""
    is_comparable: bool = True
    """For a difference: whether the published value comes from the same experiment (images, network, recipe)."""

    def __post_init__(self) -> None:
        assert bool(self.values) != bool(self.not_run), "either values or the reason why there are none"
        assert not self.is_difference or self.tolerance is None, "an interval decides about a difference"

    @property
    def mean(self) -> float | None:
        """None where nothing was run."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval over seeds; of one network's error rate over images; None where there is neither."""
        if self.at_least:
            return None
        of_mean = interval_over_seeds(self.values.values())
        if of_mean is not None:
            return Interval(*of_mean, "seeds")
        if self.mean is None or self.num_images is None:
            return None
        low, high = wilson_interval(self.mean / 100 * self.num_images, self.num_images)
        return Interval(100 * low, 100 * high, "images")

    @property
    def status(self) -> Status:
        """The verdict about this row.

        For a value: "matched" (the mean is within the tolerance of the published value), "differs" (it is not), or
        "measured" (nothing was published, or no tolerance was stated).

        For a difference, by its interval over seeds and never by a tolerance: "not resolved" (the interval contains 0,
        or there is one seed), "contradicted" (it lies on the other side of 0 than the published value), "size
        consistent" (it excludes 0 and contains the published value), "sign shown" (it lies on the published side of 0
        and does not contain the published value), or "measured" (it excludes 0, and no published value is comparable).
        """
        if self.mean is None:
            return "not run"
        if self.is_difference:
            return self._status_of_difference()
        if self.published is None or self.tolerance is None:
            return "measured"
        return "matched" if abs(self.mean - self.published) <= self.tolerance else "differs"

    def _status_of_difference(self) -> Status:
        interval = self.interval
        if interval is None or interval.over != "seeds" or interval.low <= 0 <= interval.high:
            return "not resolved"
        if self.published is None or not self.is_comparable:
            return "measured"
        if interval.low <= self.published <= interval.high:
            return "size consistent"
        return "sign shown" if (interval.low > 0) == (self.published > 0) else "contradicted"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain types, with its mean, interval and status."""
        interval = self.interval
        return {
            "quantity": self.quantity,
            "unit": self.unit,
            "protocol": self.protocol,
            "published": self.published,
            "published_source": self.published_source,
            "tolerance": self.tolerance,
            "values": {str(seed): value for seed, value in sorted(self.values.items())},
            "num_images": self.num_images,
            "is_difference": self.is_difference,
            "is_comparable": self.is_comparable,
            "mean": self.mean,
            "interval": None if interval is None else [interval.low, interval.high],
            "interval_over": None if interval is None else interval.over,
            "status": self.status,
            "not_run": self.not_run,
            "at_least": self.at_least,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Row:
        """Return the row that `to_dict` wrote; mean, interval and status are computed again from the values.

        Records of earlier versions held differences to a tolerance and had no field for them; their unit is points.
        """
        is_difference = saved.get("is_difference", saved["unit"] == "points")
        tolerance = saved.get("tolerance")
        return cls(
            quantity=saved["quantity"],
            unit=saved["unit"],
            protocol=saved["protocol"],
            values={int(seed): value for seed, value in saved["values"].items()},
            published=saved.get("published"),
            published_source=saved.get("published_source", ""),
            tolerance=None if is_difference else tolerance,
            not_run=saved.get("not_run", ""),
            at_least=saved.get("at_least", False),
            num_images=saved.get("num_images"),
            is_difference=is_difference,
            is_comparable=saved.get("is_comparable", not is_difference or tolerance is not None),
        )


def describe_status(status: Status, num_seeds: int) -> str:
    """Return the status for people; a verdict that rests on one seed says so."""
    return f"{status}, one seed" if num_seeds == 1 and status in ("matched", "differs", "not resolved") else status


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

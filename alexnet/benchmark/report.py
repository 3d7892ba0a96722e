"""What a benchmark found, and the arithmetic from blocks of steps to the numbers that are told."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from alexnet.benchmark.bench import Ready
from alexnet.benchmark.job import Job, LeftOut
from alexnet.benchmark.limits import Limits


@dataclass(frozen=True)
class Measurement:
    """One contestant's blocks."""

    name: str
    ready: Ready
    batch_size: int
    block_seconds: tuple[float, ...]
    """One a round, each of ready.steps_per_block steps."""
    phases_ms: dict[str, float]
    """Medians over steps of a pass of its own; empty where the parts of a step cannot be told apart."""
    peak_memory_bytes: int | None

    @property
    def rates(self) -> list[float]:
        """Images per second of each block."""
        return [self.ready.steps_per_block * self.batch_size / seconds for seconds in self.block_seconds]

    @property
    def images_per_second(self) -> float:
        """The median over the blocks."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest block, images per second."""
        return min(self.rates), max(self.rates)

    @property
    def step_ms(self) -> float:
        """Milliseconds of a step, of the median block."""
        return 1000 * self.batch_size / self.images_per_second

    def to_dict(self) -> dict[str, Any]:
        """What the record says of every contestant, as plain types."""
        return {
            "images_per_second": self.images_per_second,
            "images_per_second_spread": list(self.spread),
            "step_ms": self.step_ms,
            "phases_ms": self.phases_ms,
            "peak_memory_bytes": self.peak_memory_bytes,
            "settings": self.ready.settings,
            "steps_per_block": self.ready.steps_per_block,
            "first_step_seconds": self.ready.first_step_seconds,
        }


def ratio(ours: Measurement, other: Measurement) -> float:
    """How many times as fast ours is, from the medians."""
    return ours.images_per_second / other.images_per_second


def ratio_spread(ours: Measurement, other: Measurement) -> tuple[float, float]:
    """The lowest and the highest ratio within one round."""
    ratios = [a / b for a, b in zip(ours.rates, other.rates, strict=True)]
    return min(ratios), max(ratios)


@dataclass(frozen=True)
class BenchmarkReport:
    """The record of a benchmark."""

    job: Job
    rounds: int
    ours: Measurement
    baselines: list[Measurement]
    left_out: list[LeftOut]
    limits: Limits
    """Medians over the rounds."""
    flops_per_image: int
    """Of our network; for a training step, those of forward and backward."""
    environment: dict[str, Any]

    @property
    def share_of_matmul(self) -> float:
        """Our floating-point operations per second over those of a matrix product."""
        return self.ours.images_per_second * self.flops_per_image / self.limits.matmul_flops_per_second

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "task": self.job.task,
            "model": self.job.model,
            "batch_size": self.job.batch_size,
            "precision": self.job.precision,
            "layout": "channels_last",
            "device": self.job.device,
            "threads": self.ours.ready.threads,
            "rounds": self.rounds,
            "statistic": f"median of {self.rounds} interleaved blocks",
            **self.ours.to_dict(),
            "hardware": {
                **asdict(self.limits),
                "flops_per_image": self.flops_per_image,
                "share_of_matmul": self.share_of_matmul,
            },
            "baselines": [
                {
                    "name": other.name,
                    "ratio": ratio(self.ours, other),
                    "ratio_spread": list(ratio_spread(self.ours, other)),
                    **other.to_dict(),
                }
                for other in self.baselines
            ],
            "left_out": [asdict(item) for item in self.left_out],
            "environment": self.environment,
        }


def median_limits(measured: list[Limits]) -> Limits:
    """The medians of what each round found."""
    return Limits(
        statistics.median(limits.matmul_flops_per_second for limits in measured),
        statistics.median(limits.copy_bytes_per_second for limits in measured),
    )

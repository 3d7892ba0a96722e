"""A benchmark from beginning to end: warm-up, rounds of one block each, phases, memory.

The contestants live in processes of their own and take turns: A B C, A B C, ... So what the machine does besides is
shared by all, and only one works at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alexnet.benchmark.bench import Ready
from alexnet.benchmark.crew import Crew, Worker, WorkerError
from alexnet.benchmark.job import Job, LeftOut
from alexnet.benchmark.limits import Limits, flops_per_image
from alexnet.benchmark.machine import describe_machine
from alexnet.benchmark.report import BenchmarkReport, Measurement, median_limits
from alexnet.benchmark.worker import HARDWARE
from alexnet.errors import RunError
from alexnet.models import get_architecture
from alexnet.reporting.progress import Progress, format_seconds

OURS = "ours"
_PREPARE_SECONDS = 900.0
"""Most that building, compiling and the first steps of one contestant may take."""
_MARGIN_SECONDS = 60.0
_MARGIN_FACTOR = 10.0
"""A block may take so many times what was expected, and the margin besides."""
_MIN_PHASE_STEPS = 3
_LIMITS_SECONDS = 2.0


def measure(job: Job, baselines: Sequence[str], *, rounds: int, progress: Progress) -> BenchmarkReport:
    """Measure ours and the named baselines in `rounds` rounds.

    A baseline that fails is left out of the report, with the reason. Raises RunError when ours fails.
    """
    with Crew(job) as crew:
        contest = _Contest(crew, progress)
        for name in (OURS, *baselines):
            contest.admit(name)
        contest.run(rounds)
    ours, *others = [_measurement(entry, job) for entry in contest.entries]
    return BenchmarkReport(
        job=job,
        rounds=rounds,
        ours=ours,
        baselines=others,
        left_out=contest.left_out,
        limits=median_limits(contest.limits),
        flops_per_image=flops_per_image(get_architecture(job.model), job.task),
        environment={**describe_machine(), "threads": ours.ready.threads},
    )


@dataclass
class _Entry:
    """A contestant that is warm."""

    name: str
    worker: Worker
    ready: Ready
    block_seconds: list[float] = field(default_factory=list)
    phases_ms: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None

    @property
    def phase_steps(self) -> int:
        """Steps of the pass that looks at the phases."""
        return max(_MIN_PHASE_STEPS, self.ready.steps_per_block)

    @property
    def phase_seconds(self) -> float:
        """Expected for them."""
        return self.phase_steps * self.ready.block_seconds / self.ready.steps_per_block

    def run_block(self) -> None:
        """Run one block, timed."""
        self.block_seconds.append(self._ask(self.ready.block_seconds, "block", self.ready.steps_per_block))

    def finish(self) -> None:
        """After the last block: the loss still has to be finite."""
        self._ask(0.0, "check")
        self.peak_memory_bytes = self._ask(0.0, "peak_memory_bytes")
        self.phases_ms = self._ask(self.phase_seconds, "phases", self.phase_steps)

    def _ask(self, expected_seconds: float, method: str, *arguments: Any) -> Any:
        return self.worker.ask(method, *arguments, seconds=_MARGIN_SECONDS + _MARGIN_FACTOR * expected_seconds)


class _Contest:
    """The contestants that have not failed so far, and the limits of the hardware, measured between their blocks."""

    def __init__(self, crew: Crew, progress: Progress) -> None:
        self.crew, self.progress = crew, progress
        self.entries: list[_Entry] = []
        self.left_out: list[LeftOut] = []
        self.limits: list[Limits] = []

    def admit(self, name: str) -> None:
        """Start and warm up a contestant."""
        self.progress.message(f"{name}: warming up")
        worker = self.crew.hire(name)

        def prepare() -> None:
            self.entries.append(_Entry(name, worker, worker.ask("prepare", seconds=_PREPARE_SECONDS)))

        self._attempt(name, prepare)

    def run(self, rounds: int) -> None:
        """All rounds, then what is looked at once. Says before how long it will take."""
        hardware = self.crew.hire(HARDWARE)
        self._attempt(HARDWARE, lambda: hardware.ask("prepare", seconds=_PREPARE_SECONDS))
        one_round = _LIMITS_SECONDS + sum(entry.ready.block_seconds for entry in self.entries)
        seconds = rounds * one_round + sum(entry.phase_seconds for entry in self.entries)
        self.progress.message(
            f"Rounds: {rounds}, of {', '.join(entry.name for entry in self.entries)}; about {format_seconds(seconds)}"
        )
        task = self.progress.start("Measuring", rounds, unit="rounds")
        for done in range(rounds):
            for entry in list(self.entries):
                self._attempt(entry.name, entry.run_block)
            self._attempt(HARDWARE, lambda: self.limits.append(hardware.ask("measure", seconds=_PREPARE_SECONDS)))
            task.update(done + 1)
        task.finish()
        for entry in list(self.entries):
            self._attempt(entry.name, entry.finish)

    def _attempt(self, name: str, work: Callable[[], object]) -> None:
        """Do it; where it fails, the contestant is out, and the others go on."""
        try:
            work()
        except WorkerError as error:
            if name in (OURS, HARDWARE):
                what = "the network" if name == OURS else "the hardware's limit"
                raise RunError(f"{what} could not be measured: {error}.") from None
            self.entries = [entry for entry in self.entries if entry.name != name]
            self.left_out.append(LeftOut(name, f"it failed: {error}"))
            self.progress.message(f"{name}: left out, it failed: {error}")


def _measurement(entry: _Entry, job: Job) -> Measurement:
    return Measurement(
        name=entry.name,
        ready=entry.ready,
        batch_size=job.batch_size,
        block_seconds=tuple(entry.block_seconds),
        phases_ms=entry.phases_ms,
        peak_memory_bytes=entry.peak_memory_bytes,
    )

"""What a worker does when it is told to: prepare its contestant, run blocks of steps, look at phases and memory."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from alexnet.benchmark.baselines import build_contestant
from alexnet.benchmark.clock import PhaseClock, measure_phases, time_block
from alexnet.benchmark.contestants import NUM_BATCHES, random_batches
from alexnet.benchmark.job import Job, LoadingJob
from alexnet.benchmark.limits import Limits, LimitsMeter
from alexnet.benchmark.loading_bench import LoadingBench
from alexnet.benchmark.worker import HARDWARE

_BLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Ready:
    """What the warm-up showed."""

    settings: str
    threads: int
    first_step_seconds: float
    """With everything that is done once: compilation, choice of algorithms, memory."""
    steps_per_block: int
    block_seconds: float
    """Expected."""


class Bench:
    """A contestant with its batches."""

    def __init__(self, name: str, job: Job) -> None:
        self.name, self.job = name, job

    def prepare(self) -> Ready:
        """Build the contestant and warm it up. Raises ValueError when its loss is not finite."""
        if self.job.threads is not None:
            torch.set_num_threads(self.job.threads)
        self.contestant = build_contestant(self.name, self.job)
        self.batches = random_batches(self.contestant.architecture, self.job.batch_size)
        self.steps_done = 0
        self.block_result = torch.zeros(())
        first = self.block(1)
        step = self.block(1)
        self.check()
        if step < _BLOCK_SECONDS / 10:
            # One short step says little.
            num_steps = math.ceil(_BLOCK_SECONDS / 10 / step)
            step = self.block(num_steps) / num_steps
        _reset_peak(self.contestant.device)
        steps_per_block = math.ceil(_BLOCK_SECONDS / step)
        return Ready(self.contestant.settings, torch.get_num_threads(), first, steps_per_block, steps_per_block * step)

    def block(self, num_steps: int) -> float:
        """Seconds of so many steps."""
        return time_block(self._step, num_steps, self.contestant.device)

    def check(self) -> float:
        """The loss of the last step. Raises ValueError when it is not finite."""
        loss = self.block_result
        if self.job.task == "inference":
            labels = self.batches[(self.steps_done - 1) % NUM_BATCHES].labels
            loss = F.cross_entropy(loss.cpu().float(), labels)
        value = float(loss)
        if not math.isfinite(value):
            raise ValueError(f"its loss is {value}")
        return value

    def phases(self, num_steps: int) -> dict[str, float]:
        """Milliseconds of the parts of a step; empty where they cannot be told apart."""
        contestant = self.contestant
        if contestant.model is None:
            return {}
        clock = PhaseClock(contestant.device)
        return measure_phases(self._step, contestant.model, contestant.optimizer, num_steps, clock)

    def peak_memory_bytes(self) -> int | None:
        """Most since the warm-up: on CUDA of torch's allocator, elsewhere of the process in memory."""
        if self.contestant.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.contestant.device)
        return _peak_resident_bytes()

    def _step(self) -> None:
        self.block_result = self.contestant.step(self.batches[self.steps_done % NUM_BATCHES])
        self.steps_done += 1


class HardwareBench:
    """Stands in the row of the contestants with the limits of the hardware."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def prepare(self) -> None:
        """The first measurement; it does not count."""
        if self.job.threads is not None:
            torch.set_num_threads(self.job.threads)
        self.meter = LimitsMeter(self.job)
        self.meter.measure()

    def measure(self) -> Limits:
        """The limits now."""
        return self.meter.measure()


def open_bench(name: str, job: Job | LoadingJob) -> Bench | HardwareBench | LoadingBench:
    """The bench of a contestant, or of the hardware."""
    if isinstance(job, LoadingJob):
        return LoadingBench(name, job)
    return HardwareBench(job) if name == HARDWARE else Bench(name, job)


def _reset_peak(device: torch.device) -> None:
    """Forget what building, exporting and compiling took, where that can be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # Linux only, and not in every container.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_resident_bytes() -> int | None:
    # Not ru_maxrss on Linux: a process begins with its parent's there.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None

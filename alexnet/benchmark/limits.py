"""What the hardware can do at most, measured on the spot, and how much of it a network needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from alexnet.benchmark.clock import synchronize
from alexnet.benchmark.job import NUM_CLASSES, Job, Task
from alexnet.models import Architecture
from alexnet.models.summary import layer_table

_MATMUL_SIDES = (1024, 2048, 4096, 8192)
_SECONDS = 0.15
"""Time spent on each size of matrix and on the copy; a size whose products take longer is the last."""
_COPY_BYTES = 2**29
"""More than the caches of most machines hold, so that memory is what is measured."""


@dataclass(frozen=True)
class Limits:
    """What the hardware reached; random numbers, for zeros draw less power and are faster."""

    matmul_flops_per_second: float
    """The best of several sizes of square matrices."""
    copy_bytes_per_second: float
    """Bytes read and bytes written, both."""


def flops_per_image(architecture: Architecture, task: Task) -> int:
    """Floating-point operations of the weights with one image: two for a multiply-add.

    Training goes through every layer three times (outputs, gradients of the inputs, gradients of the weights), except
    that nobody needs the gradient of the images.
    """
    macs = [row.macs for row in layer_table(architecture, NUM_CLASSES) if row.macs]
    return 2 * sum(macs) if task == "inference" else 2 * (3 * sum(macs) - macs[0])


class LimitsMeter:
    """Measures the limits once a round, so that they see the same machine as the contestants."""

    def __init__(self, job: Job) -> None:
        self.device = torch.device(job.device)
        self.dtype = getattr(torch, job.precision)
        self.sides = _MATMUL_SIDES

    def measure(self) -> Limits:
        """One measurement; takes about a second."""
        matmul = 0.0
        for side in self.sides:
            flops, seconds = self._matmul(side)
            matmul = max(matmul, flops)
            if seconds > _SECONDS:
                # The next size takes eight times as long; later rounds need not find that out again.
                self.sides = tuple(smaller for smaller in self.sides if smaller <= side)
                break
        return Limits(matmul, self._copy())

    def _matmul(self, side: int) -> tuple[float, float]:
        """(floating-point operations per second, seconds of one product)."""
        a, b = (torch.randn(side, side, device=self.device).to(self.dtype) for _ in range(2))
        out = torch.empty_like(a)
        seconds = _seconds_each(lambda: torch.mm(a, b, out=out), self.device)
        return 2 * side**3 / seconds, seconds

    def _copy(self) -> float:
        source = torch.rand(_COPY_BYTES // self.dtype.itemsize, device=self.device).to(self.dtype)
        target = torch.empty_like(source)
        return 2 * _COPY_BYTES / _seconds_each(lambda: target.copy_(source), self.device)


def _seconds_each(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: of the best of a few repetitions, each of as many calls as its share of the time allows."""
    work()
    synchronize(device)
    best, spent, calls = float("inf"), 0.0, 1
    while spent < _SECONDS:
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        seconds = time.perf_counter() - started
        spent += seconds
        best = min(best, seconds / calls)
        calls = max(1, round(_SECONDS / 4 / best))
    return best

"""A worker's part in the benchmark of loading: it makes batches for a while, and looks at its clocks."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet.benchmark.job import CROP_SIZE, LoadingJob
from alexnet.benchmark.loading_contestants import open_contestant

_BLOCK_SECONDS = 2.0
_BATCHES_AHEAD = 4
"""Most that any contestant has ready, a worker process: DataLoader's default is two each."""


@dataclass(frozen=True)
class Ready:
    """What the warm-up showed."""

    batches_per_block: int
    block_seconds: float
    """Expected."""


@dataclass(frozen=True)
class Block:
    """What a block took."""

    seconds: float
    cpu_seconds: float | None
    """Of the process, its threads and its processes; None where that cannot be found out."""


class LoadingBench:
    """A way of loading, with its batches under way."""

    def __init__(self, name: str, job: LoadingJob) -> None:
        self.name, self.job = name, job
        self._batches: Iterator[Any] = iter(())

    def prepare(self) -> Ready:
        """Open the data and warm up. Raises ValueError for batches of another shape than asked for."""
        torch.set_num_threads(1)
        self._batches = open_contestant(self.name, self.job)
        images, labels = next(self._batches)
        expected = (self.job.batch_size, CROP_SIZE, CROP_SIZE, 3)
        if tuple(images.shape) != expected or len(labels) != self.job.batch_size:
            raise ValueError(f"its batches are {tuple(images.shape)} instead of {expected}")
        self._skip_what_is_ready()
        seconds = self._time(2).seconds / 2
        num_batches = max(2, math.ceil(_BLOCK_SECONDS / seconds))
        return Ready(num_batches, num_batches * seconds)

    def block(self, num_batches: int) -> Block:
        """Time so many batches, in the midst of many: as many are under way afterwards as before."""
        self._skip_what_is_ready()
        return self._time(num_batches)

    def close(self) -> None:
        """End the contestant's threads and processes, in its own way."""
        self._batches = iter(())
        gc.collect()

    def _skip_what_is_ready(self) -> None:
        for _ in range(_BATCHES_AHEAD * max(1, self.job.num_workers) // 2 + 1):
            next(self._batches)

    def _time(self, num_batches: int) -> Block:
        cpu, started = _cpu_seconds(), time.perf_counter()
        for _ in range(num_batches):
            next(self._batches)
        seconds, cpu_after = time.perf_counter() - started, _cpu_seconds()
        return Block(seconds, None if cpu is None or cpu_after is None else cpu_after - cpu)


def _cpu_seconds() -> float | None:
    """Of this process and of its living children, from Linux's accounts."""
    own = time.process_time()
    total, ticks = own, os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    try:
        children = [
            child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
        ]
        for child in children:
            # The name of the program, in brackets, may hold anything; utime and stime are the 12th and 13th after it.
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / ticks
    except OSError:
        return None
    return total

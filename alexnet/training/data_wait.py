"""How long the loop waits for its images, and what to do about it."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from alexnet.data.loader import TrainingLoader

Item = TypeVar("Item")

TOLERATED_SHARE = 0.1
"""A larger share of the time in waiting is worth a message."""
_JUDGED_SECONDS = 10.0
"""Shorter times say little: a checkpoint's write or an evaluation slows the reading for a moment."""


class DataWait:
    """Measures the waiting of one loop.

    advice: what to change, given the share of the time that is waited. is_busy: whether the device still has work; what
    is waited for meanwhile costs nothing.
    """

    def __init__(
        self,
        advice: Callable[[float], str],
        *,
        is_busy: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._advice, self._is_busy, self._now = advice, is_busy, now
        self._window = self._judged_wait = self._judged_seconds = 0.0
        self._is_told = False
        self.total_seconds = 0.0
        """Waited in all windows."""

    def timed(self, items: Iterator[Item]) -> Generator[Item]:
        """The same items; the time that each but the first is waited for is counted. The first starts the reading."""
        try:
            for number in itertools.count():
                started = self._now()
                try:
                    item = next(items)
                except StopIteration:
                    return
                if number > 0 and not self._is_busy():
                    self._window += self._now() - started
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()

    def end_window(self, seconds: float) -> tuple[float, str | None]:
        """The share of a window of `seconds` that was waited, and a message when it is time for one.

        There is one message a run: when, over ten seconds and more, the share exceeded the tolerated one.
        """
        waited, self._window = min(self._window, seconds), 0.0
        self.total_seconds += waited
        self._judged_wait += waited
        self._judged_seconds += seconds
        message = None
        if self._judged_seconds >= _JUDGED_SECONDS:
            share = self._judged_wait / self._judged_seconds
            if share > TOLERATED_SHARE and not self._is_told:
                self._is_told = True
                message = (
                    f"Training waits for images: {share:.0%} of the last {self._judged_seconds:.0f} s. "
                    f"{self._advice(share)}"
                )
            self._judged_wait = self._judged_seconds = 0.0
        return waited / seconds if seconds > 0 else 0.0, message


def reading_advice(loader: TrainingLoader, share: float) -> str:
    """What makes the reading faster, most effective first; share: of the time that is waited."""
    in_memory, storage = loader.images.array is not None, loader.images.storage
    cores = os.cpu_count() or 1
    parts = []
    if not in_memory and storage.is_remote:
        parts.append("copy the data set to this machine's disk, or give it a larger data.cache_gb")
    elif not in_memory and not storage.has_pixels:
        cheaper = "with `--format raw` nothing is left to decode"
        if storage.shards is None:
            cheaper = f"run `alexnet prepare SOURCE DEST` once and train on DEST ({cheaper})"
        else:
            cheaper = f"prepare the data set again, {cheaper}"
        parts.append(cheaper)
    if loader.num_workers < cores:
        # As many as would have kept up, if cores are what is short.
        wanted = min(cores, math.ceil(max(loader.num_workers, 1) / (1 - min(share, 0.9))))
        parts.append(f"raise runtime.num_workers from {loader.num_workers} to {wanted} of this machine's {cores} cores")
    if not in_memory and not storage.is_remote:
        parts.append("raise data.memory_limit_gb, if the decoded images fit into free memory")
    if not parts:
        parts.append("look for other work on this machine's cores")
    return f"What helps: {'; '.join(parts)}."

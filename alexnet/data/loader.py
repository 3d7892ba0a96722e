"""Batches for training, read ahead by threads; their content follows from (seed, step) alone.

Threads, because decoding, cropping and copying leave the interpreter to others, and because threads write into one
batch where processes would have to hand images over. All threads work on one batch, some rows each: so the next batch
is there as early as can be, and few have to be ahead.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch

from alexnet.config import AugmentConfig
from alexnet.data.augment import Augmentation, draw_augmentation
from alexnet.data.batch_memory import BatchMemory
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.sampler import ImageOrder, StagedOrder
from alexnet.data.squares import ImageSet
from alexnet.data.statistics import Statistics

_BATCHES_AHEAD = 2
"""Beside the one in use: one that is ready, and one that the threads work on."""
_MOST_ROWS = 16
"""Of a batch in one piece of work: handing it out then costs a hundredth of the cheapest reading."""


@dataclass(frozen=True)
class Batch:
    """The images of one step, as bytes; `images` makes network inputs of them on the device."""

    step: int
    indices: np.ndarray
    """(B,) int64: which training images these are."""
    labels: torch.Tensor
    """(B,) int64."""
    crops: torch.Tensor
    """(B, h, w, 3) uint8 RGB, cropped and reflected."""
    offsets: torch.Tensor | None
    """(B, 2) int64: top and left of each crop; None for resized crops, which have no place in the mean image."""
    flips: torch.Tensor
    """(B,) bool."""
    color_shift: torch.Tensor | None
    """(B, 3) float32 or None."""
    divisor: float

    def images(
        self, rows: slice, preprocessing: Preprocessing, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Network inputs (n, 3, h, w) of some rows."""

        def on_device(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor[rows].to(device, non_blocking=True)

        crops = self.crops[rows].to(device, non_blocking=True)
        offsets, flips, shift = on_device(self.offsets), on_device(self.flips), on_device(self.color_shift)
        return preprocessing.normalize(crops, offsets, flips, shift, self.divisor, dtype)


class TrainingLoader:
    """Makes the batch of any step; iterates over a range of steps with threads reading ahead."""

    def __init__(
        self,
        images: ImageSet,
        statistics: Statistics,
        augment: AugmentConfig,
        *,
        order: ImageOrder | StagedOrder,
        batch_size: int,
        crop_size: int,
        num_workers: int,
        rows: range | None = None,
        pinned: bool = False,
    ) -> None:
        """batch_size: images of a step over all processes; rows: which of them are made here (None: all).

        pinned: make batches in memory that CUDA copies from directly.
        """
        self.images = images
        self.statistics = statistics
        self.augment = augment
        self.order = order
        self.batch_size = batch_size
        self.crop_size = crop_size
        self.num_workers = num_workers
        self.rows = range(batch_size) if rows is None else rows
        self._announced: Sequence[int] | None = None
        self._memory = BatchMemory((len(self.rows), crop_size, crop_size, 3), pinned=pinned)

    def for_one_process(self) -> TrainingLoader:
        """The same batches, all rows of them made here."""
        whole = copy(self)
        whole.rows = range(self.batch_size)
        whole._memory = BatchMemory((self.batch_size, self.crop_size, self.crop_size, 3), pinned=False)
        return whole

    def make_batch(self, step: int) -> Batch:
        """The batch of one step (its rows of this process): a pure function of (data, recipe, seed, step)."""
        assembly = _Assembly(self, self._memory, step)
        assembly.fill(range(len(self.rows)))
        return assembly.batch()

    def batches(self, start: int, stop: int) -> Generator[Batch]:
        """The batches of steps start, ..., stop - 1 in order; reads ahead in `num_workers` threads."""
        if self.num_workers == 0:
            for step in range(start, stop):
                self._announce(step * self.batch_size)
                yield self.make_batch(step)
            return
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="alexnet-loader")
        pending: deque[tuple[_Assembly, list[Future[None]]]] = deque()

        def submit(step: int) -> None:
            assembly = _Assembly(self, self._memory, step)
            pending.append((assembly, [pool.submit(assembly.fill, rows) for rows in self._pieces()]))

        try:
            self._announce(start * self.batch_size)
            for step in range(start, min(start + 1 + _BATCHES_AHEAD, stop)):
                submit(step)
            for step in range(start, stop):
                # By the earliest batch that is not finished: its shards must not go, and those of the next window come.
                self._announce(step * self.batch_size)
                assembly, futures = pending.popleft()
                for future in futures:
                    future.result()
                if step + 1 + _BATCHES_AHEAD < stop:
                    submit(step + 1 + _BATCHES_AHEAD)
                yield assembly.batch()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _announce(self, position: int) -> None:
        """Tell the images' storage which shards come next, whenever that changes."""
        shards = self.order.shards_ahead(position)
        if shards is not None and shards != self._announced and self.images.storage.expect is not None:
            self.images.storage.expect(shards)
            self._announced = shards

    def _pieces(self) -> list[range]:
        """The rows made here, counted from 0, in pieces: a few for each thread."""
        count = len(self.rows)
        size = max(1, min(_MOST_ROWS, count // (2 * self.num_workers)))
        return [range(row, min(row + size, count)) for row in range(0, count, size)]


class _Assembly:
    """A batch while it is being made, by any number of threads."""

    def __init__(self, loader: TrainingLoader, memory: BatchMemory, step: int) -> None:
        self._loader, self._memory, self._step = loader, memory, step
        self._lock = threading.Lock()
        self._is_planned = False

    def fill(self, rows: range) -> None:
        """Read and crop the images of some rows."""
        self._plan_once()
        plan, images = self.plan, self._loader.images
        for row in rows:
            images.cut(int(self.indices[row]), plan.boxes[row], bool(plan.flips[row]), self.pixels[row])

    def batch(self) -> Batch:
        """The batch, once all rows are filled."""
        plan, loader = self.plan, self._loader
        resized = loader.augment.crop == "random_resized"
        return Batch(
            step=self._step,
            indices=self.indices,
            labels=torch.from_numpy(loader.images.labels[self.indices].astype(np.int64)),
            crops=self.crops,
            offsets=None if resized else torch.from_numpy(plan.boxes[:, :2].copy()),
            flips=torch.from_numpy(plan.flips.copy()),
            color_shift=None if plan.color_shift is None else torch.from_numpy(plan.color_shift),
            divisor=plan.divisor,
        )

    def _plan_once(self) -> None:
        """Draw what is random in the batch, in whichever thread comes first: an epoch's order takes its time."""
        with self._lock:
            if self._is_planned:
                return
            loader = self._loader
            first = self._step * loader.batch_size
            # Drawn for the whole batch, so that it does not matter how many processes share it.
            self.indices = loader.order.indices(first, loader.batch_size)[loader.rows.start : loader.rows.stop]
            whole = draw_augmentation(
                loader.augment,
                loader.statistics,
                seed=loader.order.seed,
                step=self._step,
                epoch=first / len(loader.images),
                batch_size=loader.batch_size,
                image_size=loader.images.image_size,
                crop_size=loader.crop_size,
            )
            self.plan: Augmentation = whole.of_rows(loader.rows)
            self.crops = self._memory.take()
            self.pixels = self.crops.numpy()
            self._is_planned = True

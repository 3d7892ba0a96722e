"""Batches for training, read ahead by threads; their content follows from (seed, step) alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from alexnet.config import AugmentConfig
from alexnet.data.augment import draw_augmentation
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.sampler import ImageOrder
from alexnet.data.squares import ImageSet
from alexnet.data.statistics import Statistics


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
        order: ImageOrder,
        batch_size: int,
        crop_size: int,
        num_workers: int,
    ) -> None:
        self.images = images
        self.statistics = statistics
        self.augment = augment
        self.order = order
        self.batch_size = batch_size
        self.crop_size = crop_size
        self.num_workers = num_workers

    def make_batch(self, step: int) -> Batch:
        """The batch of one step: a pure function of (data, recipe, seed, step)."""
        first = step * self.batch_size
        indices = self.order.indices(first, self.batch_size)
        plan = draw_augmentation(
            self.augment,
            self.statistics,
            seed=self.order.seed,
            step=step,
            epoch=first / len(self.images),
            batch_size=self.batch_size,
            image_size=self.images.image_size,
            crop_size=self.crop_size,
        )
        crops = np.empty((self.batch_size, self.crop_size, self.crop_size, 3), dtype=np.uint8)
        for row, index in enumerate(indices):
            self.images.cut(int(index), plan.boxes[row], bool(plan.flips[row]), crops[row])
        resized = self.augment.crop == "random_resized"
        return Batch(
            step=step,
            indices=indices,
            labels=torch.from_numpy(self.images.labels[indices].astype(np.int64)),
            crops=torch.from_numpy(crops),
            offsets=None if resized else torch.from_numpy(plan.boxes[:, :2].copy()),
            flips=torch.from_numpy(plan.flips.copy()),
            color_shift=None if plan.color_shift is None else torch.from_numpy(plan.color_shift),
            divisor=plan.divisor,
        )

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps start, ..., stop - 1 in order; reads ahead in `num_workers` threads."""
        if self.num_workers == 0:
            for step in range(start, stop):
                yield self.make_batch(step)
            return
        ahead = self.num_workers + 1
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="alexnet-loader")
        try:
            for step in range(start, stop):
                for upcoming in range(step + len(pending), min(step + ahead, stop)):
                    pending.append(pool.submit(self.make_batch, upcoming))
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

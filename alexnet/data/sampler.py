"""Which image comes when: an endless stream of epochs, each a permutation that follows from (seed, epoch) alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from alexnet.runtime.randomness import random_stream

Shuffle = Literal["each_epoch", "once", "never"]


class ImageOrder:
    """The order in which training sees its images.

    Position p of the stream is image `p % num_images` of epoch `p // num_images`. Step t of a run takes the positions
    t * batch_size to (t + 1) * batch_size: every batch is full, one that straddles an epoch's end simply goes on into
    the next, and every image is seen exactly once an epoch.
    """

    def __init__(self, num_images: int, shuffle: Shuffle, seed: int) -> None:
        self.num_images = num_images
        self.shuffle = shuffle
        self.seed = seed
        self._epoch_order = lru_cache(maxsize=3)(self._draw_epoch_order)

    def _draw_epoch_order(self, epoch: int) -> np.ndarray:
        if self.shuffle == "never":
            return np.arange(self.num_images)
        return random_stream(self.seed, "order", epoch).permutation(self.num_images)

    def indices(self, start: int, count: int) -> np.ndarray:
        """The image indices at stream positions start, ..., start + count - 1: int64, shape (count,)."""
        parts = []
        position, end = start, start + count
        while position < end:
            epoch, offset = divmod(position, self.num_images)
            take = min(end - position, self.num_images - offset)
            # "once" is the 2012 code's way: shuffled into batch files at the start, then always in that order.
            order = self._epoch_order(0 if self.shuffle != "each_epoch" else epoch)
            parts.append(order[offset : offset + take])
            position += take
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

"""Which image comes when: an endless stream of epochs, each a permutation that follows from (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Sequence
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

    def __init__(self, num_images: int, shuffle: Shuffle, seed: int, *, windows: ShardWindows | None = None) -> None:
        """windows: shuffle the images within them only; None: all with all."""
        assert windows is None or windows.num_images == num_images
        self.num_images = num_images
        self.shuffle = shuffle
        self.seed = seed
        self.windows = None if shuffle == "never" else windows
        self._epoch_order = lru_cache(maxsize=2)(self._draw_epoch_order)

    def _draw_epoch_order(self, epoch: int) -> np.ndarray:
        # Half the memory of int64, and the same order: of 14 million images it takes 57 MB.
        order = np.arange(self.num_images, dtype=np.int32 if self.num_images < 2**31 else np.int64)
        if self.shuffle != "never":
            random_stream(self.seed, "order", epoch).shuffle(order)
        return order

    def indices(self, start: int, count: int) -> np.ndarray:
        """The image indices at stream positions start, ..., start + count - 1: int64, shape (count,)."""
        parts = []
        position, end = start, start + count
        while position < end:
            epoch, offset = divmod(position, self.num_images)
            take = min(end - position, self.num_images - offset)
            drawn = self._drawn_epoch(epoch)
            if self.windows is None:
                parts.append(self._epoch_order(drawn)[offset : offset + take])
            else:
                parts.append(self.windows.indices(self.seed, drawn, offset, take))
            position += take
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)

    def shards_ahead(self, position: int) -> Sequence[int] | None:
        """The shards that are read from a stream position on, in the order they are needed in: those of its window and
        of the next one. None where any shard may be needed at any time."""
        if self.windows is None:
            return None
        epoch, offset = divmod(position, self.num_images)
        shards = self.windows.shards_at(self.seed, self._drawn_epoch(epoch), offset)
        following = self.windows.shards_after(self.seed, self._drawn_epoch(epoch), offset)
        if following is None:
            following = self.windows.shards_at(self.seed, self._drawn_epoch(epoch + 1), 0)
        return list(dict.fromkeys([*shards, *following]))

    def _drawn_epoch(self, epoch: int) -> int:
        # "once" is the 2012 code's way: shuffled into batch files at the start, then always in that order.
        return epoch if self.shuffle == "each_epoch" else 0


class StagedOrder:
    """One order up to a position of the stream, and another from there on."""

    def __init__(self, first: ImageOrder, until: int, then: ImageOrder) -> None:
        """until: the position at which `then` begins, with its own position 0."""
        self.first, self.until, self.then = first, until, then
        self.seed = then.seed

    def indices(self, start: int, count: int) -> np.ndarray:
        """As of `ImageOrder`."""
        before = min(max(self.until - start, 0), count)
        parts = [self.first.indices(start, before), self.then.indices(start + before - self.until, count - before)]
        return np.concatenate(parts) if 0 < before < count else parts[0 if before else 1]

    def shards_ahead(self, position: int) -> Sequence[int] | None:
        """As of `ImageOrder`."""
        if position < self.until:
            return self.first.shards_ahead(position)
        return self.then.shards_ahead(position - self.until)


class ShardWindows:
    """An order for sets that do not fit on the disk: shards in random order, images shuffled within windows of them.

    So only the shards of two windows are needed at a time, and memory does not grow with the data set.
    """

    def __init__(self, shards: np.ndarray, window: int) -> None:
        """shards: (N,) which shard each image lies in, never falling; window: shards that are shuffled together."""
        # Where each shard's images begin; shards without images do not occur.
        self._starts = np.concatenate([[0], np.flatnonzero(np.diff(shards)) + 1, [len(shards)]])
        self._numbers = shards[self._starts[:-1]]
        self.num_images = len(shards)
        self.window = window
        self._layout = lru_cache(maxsize=3)(self._draw_layout)
        self._order = lru_cache(maxsize=3)(self._draw_order)

    def indices(self, seed: int, epoch: int, start: int, count: int) -> np.ndarray:
        """The images at positions start, ..., start + count - 1 of an epoch."""
        parts, end = [], start + count
        _, window_starts = self._layout(seed, epoch)
        while start < end:
            number = int(np.searchsorted(window_starts, start, side="right")) - 1
            first = int(window_starts[number])
            part = self._order(seed, epoch, number)[start - first : end - first]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def shards_at(self, seed: int, epoch: int, position: int) -> list[int]:
        """The shards of the window that a position of an epoch lies in."""
        return self._shards_of(seed, epoch, self._window_at(seed, epoch, position))

    def shards_after(self, seed: int, epoch: int, position: int) -> list[int] | None:
        """Those of the next window; None after the last of the epoch."""
        number = self._window_at(seed, epoch, position) + 1
        _, window_starts = self._layout(seed, epoch)
        return None if number == len(window_starts) - 1 else self._shards_of(seed, epoch, number)

    def _window_at(self, seed: int, epoch: int, position: int) -> int:
        return int(np.searchsorted(self._layout(seed, epoch)[1], position, side="right")) - 1

    def _shards_of(self, seed: int, epoch: int, number: int) -> list[int]:
        order, _ = self._layout(seed, epoch)
        return self._numbers[order[number * self.window : (number + 1) * self.window]].tolist()

    def _draw_layout(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the shards, and the positions at which windows begin, with the epoch's end."""
        order = random_stream(seed, "shards", epoch).permutation(len(self._numbers))
        ends = np.cumsum(np.diff(self._starts)[order])
        return order, np.unique(np.concatenate([[0], ends[self.window - 1 :: self.window], ends[-1:]]))

    def _draw_order(self, seed: int, epoch: int, number: int) -> np.ndarray:
        order, _ = self._layout(seed, epoch)
        chosen = order[number * self.window : (number + 1) * self.window]
        images = np.concatenate([np.arange(*self._starts[i : i + 2].tolist()) for i in chosen])
        random_stream(seed, "window", epoch, number).shuffle(images)
        return images

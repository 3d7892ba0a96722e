"""Memory for batches that is used again as soon as nobody holds anything in it."""

from __future__ import annotations

import weakref

import numpy as np
import torch


class BatchMemory:
    """Hands out byte tensors of one shape.

    Fresh memory is paid for in page faults, with large batches of raw images more than the copies into it
    (docs/performance.md), unless the C library happens to keep freed blocks. So a block comes back when the last tensor
    that lies in it, views included, is gone: a batch that somebody keeps is never overwritten, and takes a block more.
    Pinned memory comes from torch, which besides waits for copies to the device.
    """

    def __init__(self, shape: tuple[int, ...], *, pinned: bool) -> None:
        self.shape = shape
        self.pinned = pinned
        self._free: list[np.ndarray] = []

    def take(self) -> torch.Tensor:
        """A uint8 tensor with anything in it; from any thread."""
        if self.pinned:
            return torch.empty(self.shape, dtype=torch.uint8, pin_memory=True)
        try:
            block = self._free.pop()
        except IndexError:
            block = np.empty(self.shape, np.uint8)
        # torch holds this very object until the storage of the tensor is freed.
        lent = block[...]
        weakref.finalize(lent, self._free.append, block).atexit = False
        return torch.from_numpy(lent)

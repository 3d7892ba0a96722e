"""The batch whose loss was not finite, kept in the run's folder: what a person looks at, and what a replay compares."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet.data.loader import TrainingLoader
from alexnet.errors import UserError
from alexnet.runtime.files import write_atomically


class DivergedBatch(NamedTuple):
    """A whole batch, of all processes; diverged.npz."""

    step: int
    keys: np.ndarray
    """(B,) str: the images' names in the data set."""
    labels: np.ndarray
    """(B,) int64."""
    crops: np.ndarray
    """(B, h, w, 3) uint8 RGB, cropped and reflected as the network was given them."""


def save_diverged_batch(path: Path, loader: TrainingLoader, step: int) -> None:
    """Make the batch of a step once more, all of its rows, and write it. Raises RunError where the disk is full."""
    batch = loader.for_one_process().make_batch(step)
    keys = np.array([str(loader.images.keys[index]) for index in batch.indices.tolist()])
    values = DivergedBatch(step, keys, batch.labels.numpy(), batch.crops.numpy())
    write_atomically(path, lambda file: np.savez(file, **values._asdict()))


def load_diverged_batch(path: Path) -> DivergedBatch:
    """Read it. Raises UserError where it is damaged; nothing in it is executed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return DivergedBatch(int(file["step"]), file["keys"], file["labels"], file["crops"])
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}).") from None

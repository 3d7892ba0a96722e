"""What is measured: the work that is the same for every contestant. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["train", "inference"]
NUM_CLASSES = 1000
STORED_SIZE, CROP_SIZE = 256, 224
"""Of the benchmark of loading: the side of the squares, and of the crops."""


@dataclass(frozen=True)
class Job:
    """The work of a benchmark; every contestant gets the same."""

    task: Task
    model: str
    """A variant of `alexnet.models.ARCHITECTURES`."""
    batch_size: int
    precision: Literal["bfloat16", "float32"]
    """Of our activations, and of the matrix products that the hardware limit is measured with."""
    device: str
    """A device of torch."""
    threads: int | None
    """Threads of torch's kernels; None leaves torch's choice."""


@dataclass(frozen=True)
class LoadingJob:
    """The work of the benchmark of loading: crops of CROP_SIZE with flips, from the same images."""

    originals: str | None
    """Class folders."""
    jpeg: str | None
    """The same images as a prepared data set of JPEG squares."""
    raw: str | None
    """And as one of pixels."""
    batch_size: int
    num_workers: int
    """Threads or processes that read."""


@dataclass(frozen=True)
class LeftOut:
    """A contestant that does not appear in the result."""

    name: str
    reason: str

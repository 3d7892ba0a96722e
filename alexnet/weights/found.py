"""What a file of weights says, in this package's names and layouts, before it is compared with any network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from alexnet.models import Architecture


@dataclass(frozen=True)
class Mean:
    """What is subtracted from pixels of 0-255 (or of 0-1, for networks with inputs of unit scale)."""

    values: np.ndarray
    """(3,) or (H, W, 3) float32, RGB."""
    origin: str
    """For people: where it is from."""


@dataclass(frozen=True)
class Found:
    """The weights of one file, and whatever else it tells about its network."""

    form: str
    """For people: what kind of file it is, as in "a Caffe model"."""
    tensors: Mapping[str, Tensor]
    """conv1.weight and so on: (outputs, inputs per group, ...), the inputs of fc6 as (channel, row, column)."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our name -> the file's, of the same weights."""
    variants: tuple[str, ...] = ()
    """The variants that the form leaves open; empty: all."""
    architecture: Architecture | None = None
    """Where the file describes its network."""
    image_size: int | None = None
    """Side of the network's input in pixels, where the file says it."""
    mean: Mean | None = None
    """Where the file holds it."""
    mean_file: str | None = None
    """The file with the mean that the network was trained with, where it is named only."""
    notes: tuple[str, ...] = ()
    """Sentences the person should see."""

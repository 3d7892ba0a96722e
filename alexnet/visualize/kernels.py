"""The kernels of the first convolution (paper, Figure 3), and how much of each is colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from alexnet.errors import UserError
from alexnet.models import AlexNet, Architecture
from alexnet.models.architecture import INPUT_CHANNELS

if TYPE_CHECKING:
    from alexnet.training.checkpoint import Checkpoint

LAYER = "conv1"


@dataclass(frozen=True)
class Kernels:
    """The first convolution's weights (O, 3, h, w) float32, channels in RGB order, in so many banks (towers)."""

    layer: str
    weights: np.ndarray
    banks: int
    step: int
    selection: str | None = None
    """Which of its run's weights they are, as `Checkpoint.selection`."""


def first_kernels(checkpoint: Checkpoint) -> Kernels | None:
    """The first convolution's kernels, None where they are not RGB kernels."""
    weights = _rgb_weights(checkpoint.model_state, checkpoint.preprocessing.channel_order)
    if weights is None:
        return None
    banks = _num_banks(checkpoint.architecture)
    return Kernels(LAYER, weights, banks, checkpoint.step, checkpoint.selection)


def kernel_banks(model: AlexNet) -> list[np.ndarray]:
    """The first convolution's kernels, (O, 3, h, w) float32 in RGB order, one array for each tower.

    Raises UserError for a network without a first convolution of RGB kernels.
    """
    weights = _rgb_weights(dict(model.named_parameters()), model.architecture.channel_order)
    if weights is None:
        raise UserError(f"{model.architecture.name} has no {LAYER} with kernels for red, green and blue to show.")
    return np.split(weights, _num_banks(model.architecture))


def color_share(kernels: np.ndarray) -> np.ndarray:
    """For each kernel of (O, 3, h, w) the share of its energy that is not the same in R, G and B: (O,) in [0, 1].

    0 is a grey kernel, 1 one whose channels cancel; independent noise has 2/3.
    """
    kernels = kernels.astype(np.float64)
    grey = kernels.mean(axis=1, keepdims=True)
    energy = (kernels**2).sum(axis=(1, 2, 3))
    return ((kernels - grey) ** 2).sum(axis=(1, 2, 3)) / np.maximum(energy, np.finfo(np.float64).tiny)


def _rgb_weights(state: Mapping[str, Tensor], channel_order: str) -> np.ndarray | None:
    weights = state.get(f"{LAYER}.weight")
    if weights is None or weights.ndim != 4 or weights.shape[1] != INPUT_CHANNELS:
        return None
    array = weights.detach().float().cpu().numpy()
    return array[:, ::-1] if channel_order == "bgr" else array


def _num_banks(architecture: Architecture) -> int:
    """Two where the second convolution has two groups: then the first one's kernels lived on two GPUs (paper 3.5)."""
    groups = [getattr(layer, "groups", 1) for layer in architecture.layers if layer.name == "conv2"]
    return groups[0] if groups else 1

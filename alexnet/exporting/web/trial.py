"""Whether the file of the page gives, beside the right guesses, the right layers and the right place to look."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from alexnet.errors import RunError
from alexnet.exporting.formats import Weights
from alexnet.exporting.packing import packed_model
from alexnet.exporting.verification import drawn_photographs
from alexnet.exporting.web.insights import BEST_GUESS
from alexnet.training.checkpoint import Checkpoint
from alexnet.visualize import center_crop, grad_cam, layer_activations

if TYPE_CHECKING:
    import onnxruntime

NUM_SQUARES = 4


class Differences(NamedTuple):
    """The largest differences between the file, once run, and the network, relative to the largest value of each."""

    heat: float
    layers: float
    layer: str
    """The layer in which that is."""


def try_insights(
    session: onnxruntime.InferenceSession, checkpoint: Checkpoint, weights: Weights, tolerance: float
) -> Differences:
    """Run the file on drawn photographs, for best guesses and for other classes, and compare with `alexnet.visualize`.

    Raises RunError where they differ by more than `tolerance`.
    """
    model = packed_model(checkpoint, weights)
    names = [output.name for output in session.get_outputs()]
    heats, layers = [0.0], [(0.0, "")]
    for number, square in enumerate(drawn_photographs(checkpoint.preprocessing.image_size).squares[:NUM_SQUARES]):
        inputs = center_crop(square, checkpoint.preprocessing).inputs
        asked = BEST_GUESS if number % 2 == 0 else number % checkpoint.num_classes
        feeds = {"images": square[None], "class_index": np.array([asked], np.int32)}
        found = dict(zip(names, map(np.asarray, session.run(None, feeds)), strict=True))
        heat = grad_cam(model, inputs, None if asked == BEST_GUESS else asked)
        heats.append(_difference(found["heat"], heat))
        expected = layer_activations(model, inputs, [name for name in names if name not in ("probabilities", "heat")])
        layers += [(_difference(found[name], outputs), name) for name, outputs in expected.items()]
    result = Differences(max(heats), *max(layers))
    if not max(result.heat, result.layers) <= tolerance:
        raise RunError(
            "the exported file does not compute what the network does, so it was not kept: relative to the largest "
            f"value Grad-CAM differs by up to {result.heat:.2g}, {result.layer} by {result.layers:.2g}; --tolerance is "
            f"{tolerance:g}"
        )
    return result


def _difference(found: np.ndarray, expected: torch.Tensor) -> float:
    right = expected.detach().numpy()
    if found.shape != right.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - right).max() / max(np.abs(right).max(), np.finfo(np.float32).tiny))

"""Whether an exported program computes what the network does: it is run, on photographs, and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from alexnet.data.decode import UnreadableImage
from alexnet.data.photographs import draw_photograph
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import to_square
from alexnet.data.squares import ImageSet
from alexnet.errors import RunError, UserError
from alexnet.evaluation.inputs import ImageInput, open_inputs
from alexnet.evaluation.views import cut_views, view_crops

BATCH_SIZES = (1, 3, 64)
_NUM_DRAWN = 16
_SMALLEST_PROBABILITY = 1e-30
"""The logarithms of smaller ones are not compared: float32 holds them with ever fewer digits."""

Runner = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""A file ready to run: (N, S, S, 3) uint8 -> its outputs by name, probabilities (N, classes) and perhaps logits."""


@dataclass(frozen=True)
class Photographs:
    """Squares to verify on."""

    squares: np.ndarray
    """(64, S, S, 3) uint8; fewer images are repeated."""
    source: str
    """What they are, for people."""


@dataclass(frozen=True)
class Verification:
    """The largest differences between a file, once run, and the network with the same weights."""

    runtime: str
    images: str
    batch_sizes: Sequence[int]
    probabilities: float
    log_probabilities: float
    """Of natural logarithms, relative to the largest one (at least 1). They show what probabilities near 0 hide."""
    logits: float | None
    """Relative to the largest one (at least 1); None where the file does not give them."""
    tolerance: float

    @property
    def largest(self) -> float:
        """The largest of them all; nan where an output is not a number."""
        values = [self.probabilities, self.log_probabilities, *([] if self.logits is None else [self.logits])]
        return float(np.max(values))


def drawn_photographs(image_size: int) -> Photographs:
    """Photographs that are there on every machine."""
    squares = [to_square(draw_photograph(number), image_size) for number in range(_NUM_DRAWN)]
    return _photographs(squares, f"{_NUM_DRAWN} drawn photographs")


def photographs_of(images: ImageSet, name: str) -> Photographs:
    """Images of a data set, evenly spread over it."""
    count = min(max(BATCH_SIZES), len(images))
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    return _photographs([images.square(int(index)) for index in chosen], f"{count} images of {name}")


def photographs_in(images: Sequence[ImageInput], image_size: int) -> Photographs:
    """The first images of files, folders and what else is an image. Raises UserError where one is none."""
    squares = []
    for image in islice(open_inputs(images), max(BATCH_SIZES)):
        try:
            squares.append(to_square(image.read(), image_size))
        except UnreadableImage as error:
            raise UserError(f"--images: {image.name}: {error}") from None
    named = [str(item) for item in images if isinstance(item, str | os.PathLike)]
    return _photographs(squares, f"{len(squares)} images{' of ' if named else ''}{', '.join(named)}")


def _photographs(squares: Sequence[np.ndarray], source: str) -> Photographs:
    repeated = [squares[index % len(squares)] for index in range(max(BATCH_SIZES))]
    return Photographs(np.stack(repeated), source)


def verify(
    run: Runner,
    model: nn.Module,
    preprocessing: Preprocessing,
    photographs: Photographs,
    *,
    runtime: str,
    tolerance: float,
) -> Verification:
    """Run the file in batches of 1, 3 and 64, and `model` as evaluation does, in float32; compare.

    Raises RunError where they differ by more than `tolerance`, naming what differs, and where the network's own outputs
    are not finite.
    """
    probabilities, log_probabilities, logits = [], [], []
    for batch_size in BATCH_SIZES:
        squares = photographs.squares[:batch_size]
        outputs = run(squares)
        expected = _logits(model, preprocessing, squares)
        if not bool(expected.isfinite().all()):
            raise RunError(f"the network itself gives outputs that are not finite, on {photographs.source}")
        expected_probabilities = expected.softmax(dim=1).numpy()
        found = outputs["probabilities"]
        if found.shape != expected_probabilities.shape:
            raise RunError(f"the file gave probabilities {found.shape} where {expected_probabilities.shape} are right")
        probabilities.append(np.abs(found - expected_probabilities).max())
        log_probabilities.append(_logarithmic_difference(found, expected_probabilities))
        if "logits" in outputs:
            logits.append(_relative_difference(outputs["logits"], expected.numpy()))
    result = Verification(
        runtime=runtime,
        images=photographs.source,
        batch_sizes=BATCH_SIZES,
        probabilities=float(np.max(probabilities)),
        log_probabilities=float(np.max(log_probabilities)),
        logits=float(np.max(logits)) if logits else None,
        tolerance=tolerance,
    )
    if not result.largest <= tolerance:
        raise RunError(_too_different(result))
    return result


def _logits(model: nn.Module, preprocessing: Preprocessing, squares: np.ndarray) -> torch.Tensor:
    views = view_crops("center", squares.shape[1], preprocessing.crop_size)
    crops, offsets, flips = cut_views(torch.from_numpy(squares), views, preprocessing.crop_size)
    with torch.inference_mode():
        return model(preprocessing.normalize(crops, offsets, flips)).float()


def _logarithmic_difference(found: np.ndarray, expected: np.ndarray) -> float:
    smallest = _SMALLEST_PROBABILITY
    comparable = (expected > smallest) | (found > smallest) | ~np.isfinite(found)
    logarithms = (np.log(np.maximum(values, smallest)) for values in (found[comparable], expected[comparable]))
    return _relative_difference(*logarithms)


def _relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def _too_different(result: Verification) -> str:
    logits = "" if result.logits is None else f", of logits {result.logits:.2g} (relative)"
    return (
        f"the exported file does not compute what the network does, so it was not kept: run by {result.runtime} on "
        f"{result.images}, probabilities differ by up to {result.probabilities:.2g}, their logarithms by "
        f"{result.log_probabilities:.2g} (relative){logits}; --tolerance is {result.tolerance:g}"
    )

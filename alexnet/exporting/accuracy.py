"""What an exported program gets right, beside the network it was made of: same images, same protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alexnet.data.squares import ImageSet
from alexnet.errors import RunError
from alexnet.evaluation.evaluator import evaluate, in_batches, square_batches
from alexnet.evaluation.report import EvaluationReport, Protocol, summarize
from alexnet.exporting.verification import Runner
from alexnet.training.checkpoint import Checkpoint, build_model

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Accuracy:
    """Error rates are fractions; loss in nats."""

    top1_error: float
    top5_error: float
    loss: float


@dataclass(frozen=True)
class Loss:
    """The accuracy of the network in float32 and of the file, on every image of a split, and how far they are apart."""

    data: str
    split: str
    views: str
    """center: what the file looks at."""
    num_images: int
    network: Accuracy
    file: Accuracy
    same_first_guess: float
    """Share of the images."""
    largest_difference: float
    """Of a probability."""

    @property
    def top1_points(self) -> float:
        """Percentage points of top-1 error that the file has more than the network."""
        return 100 * (self.file.top1_error - self.network.top1_error)


def measure_loss(
    run: Runner,
    checkpoint: Checkpoint,
    images: ImageSet,
    *,
    data: str,
    split: str,
    on_network: Callable[[int, int], None] | None = None,
    on_file: Callable[[int, int], None] | None = None,
) -> Loss:
    """Evaluate the network in float32 and the file on the same images, each image once, its centre crop.

    on_network, on_file: called with (images done, images in all). Raises RunError for outputs that are not finite.
    """
    network = evaluate(
        [build_model(checkpoint)],
        [checkpoint.preprocessing],
        images,
        classes=checkpoint.classes,
        class_names=checkpoint.class_names,
        views="center",
        on_progress=on_network,
    )
    file = _evaluate_file(run, checkpoint, images, on_file)
    return Loss(
        data=data,
        split=split,
        views="center",
        num_images=len(images),
        network=_accuracy(network),
        file=_accuracy(file),
        same_first_guess=float((network.guesses == file.guesses).mean()),
        largest_difference=float(np.abs(network.probabilities - file.probabilities).max()),
    )


def _evaluate_file(
    run: Runner, checkpoint: Checkpoint, images: ImageSet, on_progress: Callable[[int, int], None] | None
) -> EvaluationReport:
    started = time.perf_counter()
    parts: list[np.ndarray] = []
    done = 0
    for squares in square_batches(images, in_batches(len(images), _BATCH_SIZE), num_workers=2):
        parts.append(run(squares.numpy())["probabilities"])
        done += len(squares)
        if on_progress is not None:
            on_progress(done, len(images))
    probabilities = np.concatenate(parts)
    if not np.isfinite(probabilities).all():
        raise RunError("the exported file gave probabilities that are not finite")
    crop_sizes = (checkpoint.preprocessing.crop_size,)
    return summarize(
        probabilities,
        np.asarray(images.labels, dtype=np.int64),
        protocol=Protocol("center", images.image_size, crop_sizes, seconds=time.perf_counter() - started),
        keys=[str(key) for key in images.keys],
        classes=checkpoint.classes,
        class_names=checkpoint.class_names,
    )


def _accuracy(report: EvaluationReport) -> Accuracy:
    return Accuracy(report.top1_error, report.top5_error, report.loss)

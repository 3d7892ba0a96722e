"""A recipe's network on a few of the data's images before training: will it learn, and what will it wait for."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import numpy as np
import torch

from alexnet.config import Recipe
from alexnet.data.decode import UnreadableImage
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.splits import Split
from alexnet.data.squares import free_memory_bytes, to_square
from alexnet.doctor.data import DataFacts
from alexnet.doctor.findings import Finding, capped, finding
from alexnet.doctor.images import sample
from alexnet.models import AlexNet
from alexnet.runtime.device import default_num_workers
from alexnet.training.signals import Signals, find_cause, measure_signals

NUM_IMAGES = 16
MEAN_IMAGES = 64
_SMALL_SHARE = 0.25
_SLOWER = 1.25
"""The loader has to be slower by more than this to count: the measurement is a short one."""


class Squares(NamedTuple):
    """A few images of a split."""

    pixels: np.ndarray
    """(N, S, S, 3) uint8."""
    labels: np.ndarray
    images_per_second: float
    """Decoding and resizing, one thread."""
    shorter_side: float
    """Median of the images as they were, pixels."""


def read_squares(split: Split, image_size: int, num_images: int) -> Squares:
    """Up to `num_images` readable images, evenly over the split; empty where none can be read."""
    squares, labels, sides = [], [], []
    started = time.perf_counter()
    for index in sample(len(split), num_images):
        try:
            pixels = split.read(index)
            squares.append(to_square(pixels, image_size))
        except UnreadableImage:
            continue
        labels.append(int(split.labels[index]))
        sides.append(min(pixels.shape[:2]))
    seconds = max(time.perf_counter() - started, 1e-9)
    stacked = np.stack(squares) if squares else np.empty((0, image_size, image_size, 3), np.uint8)
    side = float(np.median(sides)) if sides else 0.0
    return Squares(stacked, np.array(labels, np.int64), len(squares) / seconds, side)


def center_crops(pixels: np.ndarray, size: int) -> torch.Tensor:
    """(N, size, size, 3) uint8 from squares that are at least as large."""
    start = (pixels.shape[1] - size) // 2
    return torch.from_numpy(pixels[:, start : start + size, start : start + size].copy())


def inspect_start(
    name: str, recipe: Recipe, model: AlexNet, facts: DataFacts, preprocessing: Preprocessing | None = None
) -> list[Finding]:
    """Run a few training images forward and back before the first step.

    preprocessing: that of a trained network that the recipe begins with; without one the mean is of a few images.
    """
    if facts.source is None or facts.source.train is None or recipe.data.image_size < model.image_size:
        return []
    squares = read_squares(facts.source.train, recipe.data.image_size, MEAN_IMAGES)
    if len(squares.pixels) < 2:
        return []
    signals, images_per_second = signals_of(model, preprocessing or preprocessing_of(model, squares), squares)
    enlarged = []
    if squares.shorter_side < _SMALL_SHARE * recipe.data.image_size:
        what = f"The images have {squares.shorter_side:g} pixels, enlarged to squares of {recipe.data.image_size}."
        enlarged = [finding("images-enlarged", name, what)]
    return [
        *enlarged,
        _signal_finding(name, signals, model, recipe.optimizer.lr),
        *_speed_findings(name, recipe, facts, squares.images_per_second, images_per_second),
    ]


def preprocessing_of(model: AlexNet, squares: Squares) -> Preprocessing:
    """What the network sees, before there are statistics of the whole training set: the mean is that of the squares."""
    return Preprocessing(
        squares.pixels.shape[1],
        model.image_size,
        model.architecture.input_scale,
        model.architecture.channel_order,
        "center_crop",
        torch.from_numpy(squares.pixels.mean(axis=0, dtype=np.float64).astype(np.float32)),
    )


def signals_of(model: AlexNet, preprocessing: Preprocessing, squares: Squares) -> tuple[Signals, float]:
    """A few of the squares through the network and back, and the images per second this took."""
    chosen = sample(len(squares.pixels), NUM_IMAGES)
    started = time.perf_counter()
    images = preprocessing.normalize(center_crops(squares.pixels[chosen], model.image_size))
    signals = measure_signals(model, images, torch.from_numpy(squares.labels[chosen] % model.num_classes))
    return signals, len(chosen) / max(time.perf_counter() - started, 1e-9)


def signal_rows(signals: Signals) -> list[str]:
    """The scales layer by layer, as lines of evidence."""
    head = f"input: RMS {signals.input_rms:.3g}; loss {signals.loss:.3f}; logits: RMS {signals.logits.rms:.3g}"
    return [head, *signals.rows()]


def as_sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def _signal_finding(name: str, signals: Signals, model: AlexNet, lr: float) -> Finding:
    cause = find_cause(signals, model.architecture.input_scale, lr)
    evidence = signal_rows(signals)
    if cause is None:
        what = f"At initialisation {signals.num_images} images reach the logits with a sound signal."
        return finding("signals", name, what, evidence)
    what = f"At initialisation {cause.what}; expect the loss to stay at that of guessing."
    return finding("predicted-to-stall", name, what, evidence, remedy=as_sentence(cause.remedy))


def _speed_findings(name: str, recipe: Recipe, facts: DataFacts, per_thread: float, network: float) -> list[Finding]:
    """Whether decoding keeps up with the CPU; says nothing of GPUs, nor where the images fit in memory."""
    size = facts.num_train * recipe.data.image_size**2 * 3
    limit = recipe.data.memory_limit_gb
    in_memory = size <= (free_memory_bytes() // 2 if limit is None else limit * 2**30)
    if in_memory or (recipe.runtime.device == "auto" and torch.cuda.is_available()) or "cuda" in recipe.runtime.device:
        return []
    workers = recipe.runtime.num_workers
    workers = default_num_workers(images_in_memory=False) if workers is None else max(1, workers)
    loading = per_thread * min(workers, os.cpu_count() or 1)
    evidence = [
        f"decoding: {per_thread:,.0f} images/s a thread, {workers} threads (short measurement)",
        f"network: about {network:,.0f} images/s (one batch of {NUM_IMAGES}, layer by layer; a real step is faster)",
    ]
    id = "loader-bound" if network > _SLOWER * loading else "compute-bound"
    verb = "slower" if id == "loader-bound" else "faster"
    what = f"Images are read and decoded {verb} than the network takes them, and do not fit in memory."
    return [finding(id, name, what, capped(evidence))]

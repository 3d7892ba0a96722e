"""Figure 4: guesses for a few validation images, and the training images nearest to others in fc7 (paper 6.1)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from alexnet.data.resample import to_square
from alexnet.data.squares import ImageSet
from alexnet.evaluation.evaluator import evaluate
from alexnet.evaluation.features import (
    last_hidden_layer,
    network_digest,
    open_features,
    stream_features,
    write_features,
)
from alexnet.evaluation.neighbours import NeighbourIndex, Neighbours
from alexnet.evaluation.predictor import Predictor, load_predictor
from alexnet.evaluation.subjects import describe
from alexnet.models import AlexNet
from alexnet.reporting.report_images import choose_examples
from alexnet.reporting.study_figures import Guesses, Nearest, guess_cards, neighbour_rows
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.trained import DATA, SMALL, images_for, networks
from alexnet.reproduce.workbench import Workbench
from alexnet.training.checkpoint import Checkpoint

NUM_GUESSED = 8
NUM_QUERIES = 5
NUM_NEIGHBOURS = 6
NUM_MEASURED = 500
"""Validation images whose neighbours are counted."""
PIXEL_SIDE = 32


class _Trained(NamedTuple):
    """A network, ready to be asked, with both splits."""

    checkpoint: Checkpoint
    predictor: Predictor
    train: ImageSet
    val: ImageSet

    @property
    def layer(self) -> str:
        return last_hidden_layer(self.checkpoint.architecture)


class _Found(NamedTuple):
    """The neighbours of some validation images."""

    queries: list[int]
    neighbours: Neighbours
    seconds: float
    """Of the search alone."""


def same_class_share(labels: np.ndarray, neighbour_labels: np.ndarray) -> float:
    """The share of the neighbours (Q, k) that are of their query's class (Q,)."""
    return float((neighbour_labels == labels[:, None]).mean())


def _run(bench: Workbench) -> Outcome:
    rows_by_seed: dict[int, dict[str, float]] = {}
    figures: tuple[str, ...] = ()
    notes: list[str] = []
    protocol = ""
    for seed, checkpoint in networks(bench):
        trained = _Trained(
            checkpoint, load_predictor(checkpoint), images_for(bench, checkpoint, "train"),
            images_for(bench, checkpoint, "val"),
        )  # fmt: skip
        found = _nearest_by_features(bench, trained)
        rows_by_seed[seed] = _shares(trained, found)
        if not figures:
            figures = (_draw_guesses(bench, trained), _draw_neighbours(bench, trained, found))
            protocol = (
                f"{NUM_NEIGHBOURS} nearest of {len(trained.train):,} training images, {len(found.queries)} validation "
                f"images; {describe(checkpoint)}"
            )
            notes = _notes(trained, found)
    names = list(dict.fromkeys(name for values in rows_by_seed.values() for name in values))
    rows = [
        Row(name, "%", protocol, {seed: values[name] for seed, values in rows_by_seed.items() if name in values})
        for name in names
    ]
    return Outcome(tuple(rows), figures, tuple(notes))


def _notes(trained: _Trained, found: _Found) -> list[str]:
    notes = [
        f"Distances are Euclidean, between outputs of {trained.layer} for centre crops, in evaluation. Searching "
        f"{len(trained.train):,} vectors for the neighbours of {len(found.queries)} took {found.seconds:.2f} s.",
        f"The {NUM_GUESSED} and the {NUM_QUERIES} images were drawn at random, of as many classes as possible, before "
        "looking at what the network says of them.",
    ]
    if trained.train.array is None:
        notes.append("Pixels were not compared: the training images are not held in memory.")
    return notes


def _nearest_by_features(bench: Workbench, trained: _Trained) -> _Found:
    queries = choose_examples(trained.val.labels, NUM_MEASURED, seed=1)
    asked = np.concatenate(
        [batch.cpu().numpy() for batch in _stream(bench, trained, _subset(trained.val, queries), "validation")]
    )
    index = NeighbourIndex(_training_features(bench, trained), trained.predictor.device)
    started = time.perf_counter()
    return _Found(queries, index.search(asked, NUM_NEIGHBOURS), time.perf_counter() - started)


def _training_features(bench: Workbench, trained: _Trained) -> np.ndarray:
    """Those of all training images, computed once for a network, a layer, a precision and a set of images."""
    digest = hashlib.sha256(f"{network_digest(trained.checkpoint)} {trained.predictor.dtype} {bench.data}".encode())
    digest.update("\n".join(trained.train.keys).encode("utf-8", "surrogatepass"))
    if trained.train.array is not None:
        digest.update(trained.train.array.data)
    path: Path = bench.folder / "features" / f"{trained.layer}-{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        write_features(path, _stream(bench, trained, trained.train, "training"), len(trained.train))
    return open_features(path)


def _stream(bench: Workbench, trained: _Trained, images: ImageSet, which: str) -> Iterator[Tensor]:
    (model,), (preprocessing,) = trained.predictor.models, trained.predictor.preprocessings
    return stream_features(
        _as_alexnet(model),
        preprocessing,
        images,
        trained.layer,
        device=trained.predictor.device,
        dtype=trained.predictor.dtype,
        on_progress=bench.display.counter(f"Features of {which} images", transient=True),
    )


def _as_alexnet(model: nn.Module) -> AlexNet:
    assert isinstance(model, AlexNet)
    return model


def _shares(trained: _Trained, found: _Found) -> dict[str, float]:
    """Row name -> percent: neighbours of the query's class by features, by pixels, and by chance."""
    labels = trained.val.labels[found.queries]
    counts = np.bincount(trained.train.labels, minlength=len(trained.checkpoint.classes))
    shares = {
        f"same class among the nearest in {trained.layer}": same_class_share(
            labels, trained.train.labels[found.neighbours.indices]
        )
    }
    if trained.train.array is not None:
        # The paper's remark: at the level of pixels, what is found is mostly not near to what was asked.
        index = NeighbourIndex(_small_pixels(trained.train, range(len(trained.train))))
        nearest = index.search(_small_pixels(trained.val, found.queries), NUM_NEIGHBOURS)
        shares[f"same class among the nearest in pixels ({PIXEL_SIDE} x {PIXEL_SIDE})"] = same_class_share(
            labels, trained.train.labels[nearest.indices]
        )
    shares["same class by chance"] = float((counts[labels] / len(trained.train)).mean())
    return {name: 100 * share for name, share in shares.items()}


def _small_pixels(images: ImageSet, indices: list[int] | range) -> np.ndarray:
    """(n, 3 * 32 * 32) float32: the whole squares at that size."""
    return np.stack([to_square(images.square(index), PIXEL_SIDE).ravel() for index in indices]).astype(np.float32)


def _subset(images: ImageSet, indices: list[int]) -> ImageSet:
    array = np.stack([images.square(index) for index in indices])
    return ImageSet(images.labels[indices], [images.keys[i] for i in indices], images.image_size, array=array)


def _draw_guesses(bench: Workbench, trained: _Trained) -> str:
    chosen = _subset(trained.val, choose_examples(trained.val.labels, NUM_GUESSED))
    names = trained.checkpoint.class_names
    report = evaluate(
        trained.predictor.models,
        trained.predictor.preprocessings,
        chosen,
        classes=trained.checkpoint.classes,
        class_names=names,
        views="ten_crop",
        device=trained.predictor.device,
        dtype=trained.predictor.dtype,
    )
    cards = []
    for position, label in enumerate(report.labels.tolist()):
        row = report.probabilities[position]
        best = np.argsort(-row, kind="stable")[:5].tolist()
        guesses = [(names[guess], float(row[guess]), guess == label) for guess in best]
        cards.append(Guesses(chosen.square(position), names[label], guesses))
    return bench.save_figure("figure-4-guesses", guess_cards(cards))


def _draw_neighbours(bench: Workbench, trained: _Trained, found: _Found) -> str:
    names, rows = trained.checkpoint.class_names, []
    for query, nearest in zip(found.queries[:NUM_QUERIES], found.neighbours.indices, strict=False):
        label = int(trained.val.labels[query])
        shown = [
            (trained.train.square(int(i)), names[trained.train.labels[i]], bool(trained.train.labels[i] == label))
            for i in nearest
        ]
        rows.append(Nearest(trained.val.square(query), names[label], shown))
    return bench.save_figure("figure-4-neighbours", neighbour_rows(rows))


STUDY = Study(
    name="figure-4",
    title="Five best guesses for eight images, and the nearest training images of five",
    section="paper, Figure 4 and 6.1",
    data=DATA,
    cost="one training a seed, and one pass over the training images; --checkpoint spares the training",
    run=_run,
    takes_checkpoint=True,
    small=SMALL,
)

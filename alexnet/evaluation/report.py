"""The record of one evaluation: error rates with their protocol, and what they were computed from."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.errors import UserError
from alexnet.evaluation.metrics import confusion_matrix, negative_log_likelihood, top_k_credit, wilson_interval

MAX_CONFUSION_CLASSES = 200


@dataclass(frozen=True)
class ClassResult:
    """The result on the images of one class; errors are fractions, None where there are no images."""

    index: int
    class_id: str
    name: str
    count: int
    top1_error: float | None
    most_confused_with: str | None
    """Name of the class most often guessed in its place; None where there was no mistake."""


@dataclass(frozen=True)
class Mistake:
    """One image whose first guess is wrong, and the probability given to that guess."""

    index: int
    key: str
    label: int
    guess: int
    probability: float


@dataclass(frozen=True)
class Protocol:
    """How an evaluation was made; sizes in pixels."""

    views: str
    image_size: int
    crop_sizes: tuple[int, ...]
    """One per model of the ensemble."""
    seconds: float


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Error rates (fractions) and loss (nats) over N images, every image counted once.

    `confusion` (C, C) int64: row true class, column guess; exact ties go to the lowest class there, while the error
    rates give fractional credit. `probabilities` (N, C) float32 is the mean over views and models.
    """

    protocol: Protocol
    num_images: int
    top1_error: float
    top5_error: float
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    """Wilson 95 % intervals."""
    loss: float
    per_class: list[ClassResult]
    confusion: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    keys: tuple[str, ...]
    """Path or index of each image, in order."""
    classes: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def views(self) -> str:
        return self.protocol.views

    @property
    def num_models(self) -> int:
        return len(self.protocol.crop_sizes)

    @property
    def images_per_second(self) -> float:
        return self.num_images / self.protocol.seconds if self.protocol.seconds > 0 else 0.0

    @property
    def guesses(self) -> np.ndarray:
        """The most probable class of each image, (N,) int64; ties go to the lowest index."""
        return self.probabilities.argmax(axis=1)

    def worst_mistakes(self, limit: int = 24) -> list[Mistake]:
        """The wrong first guesses held with the most confidence, most confident first."""
        guesses = self.guesses
        wrong = np.flatnonzero(guesses != self.labels)
        confidence = self.probabilities[wrong, guesses[wrong]]
        chosen = wrong[np.argsort(-confidence, kind="stable")][:limit]
        return [
            Mistake(
                int(i), self.keys[i], int(self.labels[i]), int(guesses[i]), float(self.probabilities[i, guesses[i]])
            )
            for i in chosen
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; nothing in it is as long as the data set.

        `confusion` is None above MAX_CONFUSION_CLASSES classes: a million mostly empty cells help nobody.
        """
        small = len(self.classes) <= MAX_CONFUSION_CLASSES
        return {
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "top1_interval": list(self.top1_interval),
            "top5_interval": list(self.top5_interval),
            "loss": self.loss,
            "num_images": self.num_images,
            "num_models": self.num_models,
            "views": self.views,
            "image_size": self.protocol.image_size,
            "crop_sizes": list(self.protocol.crop_sizes),
            "seconds": self.protocol.seconds,
            "images_per_second": self.images_per_second,
            "per_class": [asdict(result) for result in self.per_class],
            "confusion": self.confusion.tolist() if small else None,
            "worst_mistakes": [asdict(mistake) for mistake in self.worst_mistakes()],
        }

    def save(self, path: Path) -> None:
        """Write what `load` needs to `path` (.npz), atomically. Raises RunError when the disk is full."""
        from alexnet.runtime.files import write_atomically

        contents = {
            "probabilities": self.probabilities,
            "labels": self.labels,
            "keys": np.array(self.keys, dtype=np.str_),
            "classes": np.array(self.classes, dtype=np.str_),
            "class_names": np.array(self.class_names, dtype=np.str_),
            "views": np.array(self.protocol.views),
            "image_size": np.array(self.protocol.image_size),
            "crop_sizes": np.array(self.protocol.crop_sizes, dtype=np.int64),
            "seconds": np.array(self.protocol.seconds),
        }
        write_atomically(path, lambda file: np.savez(file, **contents), sum(item.nbytes for item in contents.values()))

    @staticmethod
    def load(path: Path) -> EvaluationReport:
        """Read what `save` wrote. Raises UserError when the file is not one of those."""
        try:
            # Opened here: numpy would leave a damaged file open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                protocol = Protocol(
                    views=str(file["views"]),
                    image_size=int(file["image_size"]),
                    crop_sizes=tuple(int(size) for size in file["crop_sizes"]),
                    seconds=float(file["seconds"]),
                )
                return summarize(
                    file["probabilities"],
                    file["labels"],
                    protocol=protocol,
                    keys=file["keys"].tolist(),
                    classes=file["classes"].tolist(),
                    class_names=file["class_names"].tolist(),
                )
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a saved evaluation ({error}); evaluate the checkpoint again.") from error


def summarize(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    protocol: Protocol,
    keys: Sequence[str],
    classes: Sequence[str],
    class_names: Sequence[str],
) -> EvaluationReport:
    """Everything an EvaluationReport states, from mean probabilities (N, C) and labels (N,), N >= 1."""
    num_images, num_classes = probabilities.shape
    top1 = top_k_credit(probabilities, labels, 1)
    top5 = top_k_credit(probabilities, labels, 5)
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, num_classes)
    wrong1, wrong5 = float((1 - top1).sum()), float((1 - top5).sum())
    return EvaluationReport(
        protocol=protocol,
        num_images=num_images,
        top1_error=wrong1 / num_images,
        top5_error=wrong5 / num_images,
        top1_interval=wilson_interval(wrong1, num_images),
        top5_interval=wilson_interval(wrong5, num_images),
        loss=float(negative_log_likelihood(probabilities, labels).mean()),
        per_class=_per_class(1 - top1, labels, confusion, classes, class_names),
        confusion=confusion,
        probabilities=probabilities,
        labels=labels,
        keys=tuple(keys),
        classes=tuple(classes),
        class_names=tuple(class_names),
    )


def _per_class(
    wrong: np.ndarray, labels: np.ndarray, confusion: np.ndarray, classes: Sequence[str], class_names: Sequence[str]
) -> list[ClassResult]:
    num_classes = len(classes)
    counts = np.bincount(labels, minlength=num_classes)
    wrong_by_class = np.bincount(labels, weights=wrong, minlength=num_classes)
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    rivals = mistakes.argmax(axis=1)
    return [
        ClassResult(
            index=index,
            class_id=classes[index],
            name=class_names[index],
            count=int(counts[index]),
            top1_error=float(wrong_by_class[index] / counts[index]) if counts[index] else None,
            most_confused_with=class_names[int(rivals[index])] if mistakes[index, rivals[index]] else None,
        )
        for index in range(num_classes)
    ]

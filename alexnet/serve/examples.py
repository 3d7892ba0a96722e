"""Pictures that the page offers to begin with: of the data set, or of the run that a checkpoint belongs to."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.data.decode import UnreadableImage
from alexnet.errors import UserError
from alexnet.evaluation.image_list import UNKNOWN, ImageList
from alexnet.evaluation.report import EvaluationReport
from alexnet.reporting.report_images import choose_examples, load_report_images
from alexnet.training.run_folder import RunFolder


@dataclass(frozen=True)
class Example:
    """A picture, and what is in it; None where that is not known."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    class_id: str | None
    class_name: str | None


def examples_of_run(folder: Path | None) -> list[Example]:
    """The test images that a run's report shows; none where it has kept none."""
    if folder is None:
        return []
    try:
        pictures = load_report_images(RunFolder(folder).report_images)
        report = EvaluationReport.load(RunFolder(folder).evaluation)
        return [
            Example(pictures.squares[i], report.classes[label], report.class_names[label])
            for i, label in zip(pictures.examples, report.labels[pictures.examples].tolist(), strict=True)
        ]
    except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile, UserError):
        return []


def examples_of_images(images: ImageList, count: int = 8) -> list[Example]:
    """Images drawn at random, of as many classes as possible; unreadable ones are left out.

    They are those for validation, where there are any.
    """
    chosen = [i for i, split in enumerate(images.splits) if split == "val"] or list(range(len(images)))
    examples = []
    for place in choose_examples(images.labels[chosen], count):
        index = chosen[place]
        label = int(images.labels[index])
        try:
            pixels = images.read(index)
        except UnreadableImage:
            continue
        class_id = None if label == UNKNOWN else images.classes[label]
        examples.append(Example(pixels, class_id, images.class_name(index)))
    return examples

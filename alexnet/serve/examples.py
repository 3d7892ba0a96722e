"""Pictures that the page offers to begin with: of the data set, or of the run that a checkpoint belongs to."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.data.decode import UnreadableImage
from alexnet.data.splits import Source
from alexnet.errors import UserError
from alexnet.evaluation.report import EvaluationReport
from alexnet.reporting.report_images import choose_examples, load_report_images
from alexnet.training.run_folder import RunFolder


@dataclass(frozen=True)
class Example:
    """A picture, and what is in it."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    class_id: str
    class_name: str


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


def examples_of_data(source: Source, count: int = 8) -> list[Example]:
    """Validation images drawn at random, of as many classes as possible; unreadable ones are left out."""
    examples, split = [], source.val
    for index in choose_examples(split.labels, count):
        try:
            label = int(split.labels[index])
            examples.append(Example(split.read(index), source.classes[label], source.class_names[label]))
        except UnreadableImage:
            continue
    return examples

"""The few pictures that a run's report shows, kept with the run so that the report needs no data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet.evaluation.report import EvaluationReport

if TYPE_CHECKING:
    from alexnet.data.squares import ImageSet

NUM_EXAMPLES = 8
NUM_MISTAKES = 24


@dataclass(frozen=True)
class ReportImages:
    """Squares (K, S, S, 3) uint8 RGB of some evaluated images, by their index in the evaluation."""

    examples: list[int]
    """The test images of the figure (paper, Figure 4)."""
    squares: dict[int, np.ndarray]


def choose_examples(labels: np.ndarray, count: int = NUM_EXAMPLES, seed: int = 0) -> list[int]:
    """Indices of `count` images, fewer where there are fewer: drawn at random, of as many classes as possible."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    rank_in_class = np.zeros(len(labels), dtype=np.int64)
    seen: dict[int, int] = {}
    for index in order:
        label = int(labels[index])
        rank_in_class[index] = seen.get(label, 0)
        seen[label] = seen.get(label, 0) + 1
    # Every class's first image in random order, then the second ones, and so on.
    return [int(index) for index in order[np.argsort(rank_in_class[order], kind="stable")][:count]]


def save_report_images(report: EvaluationReport, images: ImageSet, path: Path) -> None:
    """Keep eight test images and the worst mistakes of an evaluation of `images` in `path` (.npz), atomically."""
    from alexnet.runtime.files import write_atomically

    examples = choose_examples(report.labels)
    mistakes = [mistake.index for mistake in report.worst_mistakes(NUM_MISTAKES)]
    indices = list(dict.fromkeys([*examples, *mistakes]))
    contents = {
        "indices": np.array(indices, dtype=np.int64),
        "images": np.stack([images.square(index) for index in indices]),
        "examples": np.array(examples, dtype=np.int64),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **contents))


def load_report_images(path: Path) -> ReportImages:
    """Read what `save_report_images` wrote. ValueError, KeyError or BadZipFile when it is something else."""
    # Opened here: numpy would leave a damaged file open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        squares = dict(zip(file["indices"].tolist(), file["images"], strict=True))
        return ReportImages(file["examples"].tolist(), squares)

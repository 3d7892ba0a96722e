"""Where a study works: its folder, its data and seeds, and trainings that are done once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet.config import Recipe
from alexnet.config_io import load_recipe
from alexnet.reporting.pictures import save_picture
from alexnet.reporting.progress import Progress
from alexnet.reporting.run_record import RunRecord, read_run
from alexnet.training.run import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["full", "small"]
VIEWS = {"center": "centre crop", "flip": "centre crop and its reflection", "ten_crop": "ten crops"}
"""The recipe's views as protocols name them."""


class Interrupted(Exception):
    """A training of the study was stopped by a signal; the same command goes on from there."""


@dataclass(frozen=True)
class Workbench:
    """What a study gets to work with."""

    folder: Path
    """The study's own; trainings are in runs/, pictures and the record beside it."""
    data: str
    """See `alexnet.data.sources.open_source`."""
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    """ "section.key=value" texts of the caller, laid over every recipe last."""
    scale: Scale
    display: Progress
    checkpoint: Path | None = None
    """A trained network to use in place of training one."""

    def recipe(self, name: str, *overrides: str, seed: int = 0) -> Recipe:
        """A recipe by name with a study's overrides, then the seed, then the caller's overrides."""
        return load_recipe(name, [*overrides, f"seed={seed}", *self.overrides])

    def run_folder(self, label: str, seed: int) -> Path:
        """Where a training is, an ordinary run's folder."""
        return self.folder / "runs" / label / f"seed-{seed}"

    def train(self, label: str, recipe: Recipe, *, data: str | None = None) -> RunRecord:
        """Train into runs/LABEL/seed-N, or go on, or take what is finished; `label` may have slashes in it.

        Raises Interrupted when a signal stopped it.
        """
        folder = self.run_folder(label, recipe.seed)
        self.display.message(f"{label}, seed {recipe.seed}: {folder}")
        if not train(recipe, data or self.data, folder, progress=self.display).finished:
            raise Interrupted
        return read_run(folder)

    def save_figure(self, name: str, figure: Figure) -> str:
        """Write a drawing as NAME.png, on white, and NAME.svg; returns the name of the PNG file."""
        for suffix in ("png", "svg"):
            save_picture(figure, self.folder / f"{name}.{suffix}")
        return f"{name}.png"


def error_percent(record: RunRecord) -> float:
    """The top-1 error of a run's final evaluation, in percent."""
    return 100 * record.summary["top1_error"]


def over_seeds(bench: Workbench, label: str, name: str, overrides: Sequence[str] = ()) -> dict[int, RunRecord]:
    """One recipe trained with every seed of the bench."""
    return {seed: bench.train(label, bench.recipe(name, *overrides, seed=seed)) for seed in bench.seeds}

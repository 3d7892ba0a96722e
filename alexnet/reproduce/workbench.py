"""Where a study works: its folder, its data and seeds, and trainings that are done once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet.config import Recipe
from alexnet.config_io import load_recipe
from alexnet.errors import DivergedError
from alexnet.reporting.pictures import save_picture
from alexnet.reporting.progress import Progress
from alexnet.reporting.run_record import RunRecord, read_run
from alexnet.reproduce.overrides import with_effect
from alexnet.training.run import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["full", "small"]
VIEWS = {"center": "centre crop", "flip": "centre crop and its reflection", "ten_crop": "ten crops"}
"""The recipe's views as protocols name them."""


class Interrupted(Exception):
    """A training of the study was stopped by a signal; the same command goes on from there."""

    def __init__(self, stopped_by: int | None) -> None:
        super().__init__()
        self.stopped_by = stopped_by
        """The signal; None where another process of the training got it."""


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
    trained: list[Path] = field(default_factory=list)
    """Folders of the trainings that were asked for, in this order."""

    @property
    def is_original(self) -> bool:
        """Whether the trainings are those of the recipes: at the full scale, no value changed that matters."""
        return self.scale == "full" and not with_effect(self.overrides)

    def recipe(self, name: str, *overrides: str, seed: int = 0) -> Recipe:
        """A recipe by name with a study's overrides, then the seed, then the caller's overrides."""
        return load_recipe(name, [*overrides, f"seed={seed}", *self.overrides])

    def run_folder(self, label: str, seed: int) -> Path:
        """Where a training is, an ordinary run's folder."""
        return self.folder / "runs" / label / f"seed-{seed}"

    def train(self, label: str, recipe: Recipe, *, data: str | None = None) -> RunRecord:
        """Train into runs/LABEL/seed-N, or go on, or take what is finished; `label` may have slashes in it.

        Raises Interrupted when a signal stopped it, DivergedError when its loss is not finite.
        """
        folder = self.run_folder(label, recipe.seed)
        self.display.message(f"{label}, seed {recipe.seed}: {folder}")
        if folder not in self.trained:
            self.trained.append(folder)
        summary = train(recipe, data or self.data, folder, progress=self.display)
        if not summary.finished:
            raise Interrupted(summary.stopped_by)
        return read_run(folder)

    def train_or_diverge(self, label: str, recipe: Recipe) -> RunRecord:
        """As `train`, where a loss that is not finite is a result: then the record is not finished."""
        try:
            return self.train(label, recipe)
        except DivergedError as error:
            self.display.message(f"{label}, seed {recipe.seed}: {error}")
            return read_run(self.run_folder(label, recipe.seed))

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

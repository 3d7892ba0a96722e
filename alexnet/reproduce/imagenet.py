"""What the studies of ImageNet share: full and small trainings, protocols, and what may be held against the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alexnet.config import Recipe
from alexnet.config_io import diff_recipes, format_value, load_recipe
from alexnet.evaluation.evaluator import evaluate
from alexnet.evaluation.predictor import load_predictor
from alexnet.evaluation.report import EvaluationReport
from alexnet.evaluation.subjects import recipe_of
from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce.overrides import with_effect
from alexnet.reproduce.trained import images_for
from alexnet.reproduce.workbench import VIEWS, Scale, Workbench
from alexnet.training.checkpoint import load_checkpoint

# At 128 pixels, as at 224, the last maps have the same size with and without overlap (31, 15, 15, 7, 7, 3 and 31, 16,
# 14, 7, 5, 3), so that an ablation of the pools is nothing else; other sizes do not all have this.
SMALL_RECIPE = "folder"
SMALL_VALUES = ("model.image_size=128", "data.image_size=146", "train.epochs=10", "train.min_steps=300")
SMALL = "any images: the recipe folder at 128 pixels, 10 epochs and at least 300 steps"


class HeldOutImages(NamedTuple):
    """The images that published errors are of."""

    name: str
    num_images: int


VAL_2012 = HeldOutImages("ILSVRC-2012 validation", 50_000)
TEST_2010 = HeldOutImages("ILSVRC-2010 test", 150_000)


def recipe_for(bench: Workbench, name: str, seed: int, base: str | None = None) -> Recipe:
    """The recipe of a training; at the small scale the small recipe with what distinguishes `name` from `base`."""
    if bench.scale == "full":
        return bench.recipe(name, seed=seed)
    overrides = differences(base, name, bench.scale) if base is not None else []
    return bench.recipe(SMALL_RECIPE, *SMALL_VALUES, *overrides, seed=seed)


def differences(base: str, name: str, scale: Scale = "full") -> list[str]:
    """Return the overrides that turn the recipe `base` into `name`.

    Args:
        base: Name of a recipe.
        name: Name of another.
        scale: At "small" the keys of `schedule` are left out. Both small trainings have the schedule of SMALL_RECIPE;
            epochs of a run of 90 would mean nothing there.
    """
    found = diff_recipes(load_recipe(base), load_recipe(name))
    return [
        f"{key}={'none' if value is None else format_value(value)}"
        for key, _, value in found
        if scale == "full" or not key.startswith("schedule.")
    ]


def is_comparable(bench: Workbench, run: RunRecord, held_out: HeldOutImages) -> bool:
    """Whether errors can be held against published ones: the recipe unchanged, as many images, ten crops."""
    summary = run.summary
    same_images = summary["num_images"] == held_out.num_images and summary["views"] == "ten_crop"
    return bench.is_original and same_images


def protocol_of(run: RunRecord, views: str | None = None) -> str:
    """Which images, views and weights an error of this run is of; None: the views of its own final evaluation."""
    summary = run.summary
    return (
        f"{summary['num_images']:,} validation images of {summary['data']}, {VIEWS[views or summary['views']]}, "
        f"{summary['checkpoint']} weights"
    )


def evaluate_together(bench: Workbench, runs: Sequence[RunRecord], views: str | None = None) -> EvaluationReport:
    """The mean probabilities of the runs' networks on their validation images (paper 4.1; None: the recipe's views)."""
    checkpoints = [load_checkpoint(run.folder) for run in runs]
    recipe = recipe_of(checkpoints[0])
    predictor = load_predictor(checkpoints, device=recipe.runtime.device)
    return evaluate(
        predictor.models,
        predictor.preprocessings,
        images_for(bench, checkpoints[0], "val"),
        classes=checkpoints[0].classes,
        views=views or recipe.evaluate.views,
        device=predictor.device,
        dtype=predictor.dtype,
        on_progress=bench.display.counter(f"Evaluating {len(runs)} networks", transient=True),
    )


def comparison_notes(bench: Workbench, run: RunRecord, held_out: HeldOutImages) -> tuple[str, ...]:
    """Why the numbers are not held against the published ones, where they are not."""
    if is_comparable(bench, run, held_out):
        return ()
    if bench.scale == "small":
        what = f"{SMALL} in place of the paper's data and schedule"
    else:
        changes = "".join(f", with {text}" for text in with_effect(bench.overrides))
        what = f"{run.summary['num_images']:,} images, {VIEWS[run.summary['views']]}{changes}"
    return (
        f"The published numbers are of {held_out.name}, {held_out.num_images:,} images, ten crops. Ours are of {what}: "
        "they stand beside the published ones, and are not held against them.",
    )

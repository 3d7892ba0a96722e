"""Trained networks for the studies that show what one has learnt: given as a checkpoint, or trained here."""

from __future__ import annotations

from collections.abc import Iterator

from alexnet.data.squares import ImageSet
from alexnet.evaluation import subjects
from alexnet.reproduce.workbench import Workbench, over_seeds
from alexnet.training.checkpoint import Checkpoint, load_checkpoint

FULL_RECIPE = "as-run-2012"
SMALL_RECIPE = ("folder", "train.epochs=8", "train.min_steps=600")
SMALL = "the recipe folder with 8 epochs, at least 600 steps, in place of as-run-2012"
DATA = "ImageNet; with --scale small any labelled colour images"


def networks(bench: Workbench, model: str = "as_run") -> Iterator[tuple[int, Checkpoint]]:
    """Seeds and networks, one in memory at a time: the one that was given, or those a training of `model` ends with."""
    if bench.checkpoint is not None:
        given = load_checkpoint(bench.checkpoint)
        yield int(given.recipe.get("seed", 0)), given
        return
    name, *overrides = (FULL_RECIPE,) if bench.scale == "full" else SMALL_RECIPE
    for seed, run in over_seeds(bench, model, name, [f"model.name={model}", *overrides]).items():
        yield seed, load_checkpoint(run.folder)


def images_for(bench: Workbench, checkpoint: Checkpoint, split: str) -> ImageSet:
    """A split of the bench's data as the network takes it."""
    return subjects.images_for(
        checkpoint,
        bench.data,
        split,
        on_progress=bench.display.counter(f"Reading {split} images", transient=True),
        on_message=bench.display.message,
    )

"""The images that a trained network is asked about, split and labelled as they were in its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet.config import DataConfig, Recipe
from alexnet.data.originals.listing import some
from alexnet.data.sources import open_source
from alexnet.data.splits import Split
from alexnet.data.squares import ImageSet, load_images
from alexnet.errors import UserError
from alexnet.runtime.device import default_num_workers

if TYPE_CHECKING:
    from alexnet.training.checkpoint import Checkpoint


def describe(checkpoint: Checkpoint) -> str:
    """The network in a few words, for a protocol."""
    if checkpoint.imported is not None:
        return f"{checkpoint.architecture.name}, imported from {checkpoint.imported['file']}"
    name, step, epoch = checkpoint.architecture.name, checkpoint.step, checkpoint.epoch
    data = f"{Path(checkpoint.data).name}, {checkpoint.num_classes:,} classes"
    which = "" if checkpoint.selection is None else f", {checkpoint.selection} weights"
    return f"{name} after {step:,} steps ({epoch:.3g} epochs) of {data}{which}"


def recipe_of(checkpoint: Checkpoint) -> Recipe:
    """The recipe of its training. Raises UserError where this version cannot read it."""
    try:
        return Recipe.model_validate(checkpoint.recipe)
    except ValueError:
        raise UserError(
            "the checkpoint's recipe was written by another version of alexnet, which this one cannot read"
        ) from None


def data_config_of(checkpoint: Checkpoint) -> DataConfig:
    """How data sets are split for this network: as in its training, where its recipe says so, but with all images."""
    try:
        config = Recipe.model_validate(checkpoint.recipe).data
    except ValueError:  # of weights from elsewhere, or of another version
        config = DataConfig()
    return config.model_copy(update={"max_train_images": None, "shuffle_window": None})


def split_for(checkpoint: Checkpoint, data: str | None, split: str) -> Split:
    """A split of DATA (None: of what the network was trained on) with labels that count in the network's classes.

    The training's own data section opens it, so that a data set without a validation split is split as it was then. The
    data may have fewer classes than the network. Raises UserError for data that cannot be opened, a split that is not
    there and classes that the network does not know.
    """
    if split not in ("train", "val"):
        raise UserError(f"the split is train or val, not {split!r}")
    if not data and not checkpoint.data:
        raise UserError(
            "the checkpoint was imported, and does not say on which images to ask it; name them with --data"
        )
    source = open_source(data or checkpoint.data, recipe_of(checkpoint).data)
    chosen = source.train if split == "train" else source.val
    if chosen is None:
        raise UserError(f"{source.name} has no {split} images")
    classes = list(checkpoint.classes)
    unknown = [name for name in source.classes if name not in classes]
    if unknown:
        raise UserError(
            f"the network does not know the class {unknown[0]!r} of {source.name} "
            f"({len(unknown)} of {len(source.classes)} unknown; it knows {some(classes)}); "
            "evaluate it on data with the classes that it was trained on"
        )
    positions = np.array([classes.index(name) for name in source.classes], dtype=np.int64)
    return replace(chosen, labels=positions[chosen.labels], classes=checkpoint.classes)


def images_for(
    checkpoint: Checkpoint,
    data: str | None,
    split: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_message: Callable[[str], object] | None = None,
) -> ImageSet:
    """The images of `split_for` as squares of the size that the network's preprocessing takes.

    on_progress(images read, images in all); on_message is told of each image that cannot be read and is left out.
    """
    images = load_images(
        split_for(checkpoint, data, split),
        checkpoint.preprocessing.image_size,
        num_workers=default_num_workers(images_in_memory=False),
        max_unreadable=recipe_of(checkpoint).data.max_unreadable,
        memory_limit_bytes=None,
        on_progress=on_progress,
    )
    for item in images.skipped:
        if on_message is not None:
            on_message(f"{item.key} is unreadable and left out: {item.reason}.")
    return images

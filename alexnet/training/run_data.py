"""The images of a run, decoded or ready to be, with the statistics of the training set."""

from __future__ import annotations

import json
import zipfile
from typing import Any, NamedTuple

import numpy as np
import torch

from alexnet.config import Recipe
from alexnet.data.splits import Source
from alexnet.data.squares import ImageSet, free_memory_bytes, load_images
from alexnet.data.statistics import Statistics, from_sums, sums_over
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.runtime.device import num_workers_of
from alexnet.runtime.distributed import World
from alexnet.runtime.files import write_atomically, write_text
from alexnet.training.run_folder import RunFolder


class RunData(NamedTuple):
    """Both splits of a data set as a run uses them."""

    source: Source
    train: ImageSet
    validation: ImageSet
    statistics: Statistics
    """Of the training images."""


def load_run_data(recipe: Recipe, source: Source, folder: RunFolder, display: ProgressDisplay, world: World) -> RunData:
    """Both splits and the training set's statistics; what was skipped is kept with the run."""
    with world.together():
        record = folder.data_record() if world.is_main else {}
    record = world.from_main(record)
    assert source.train is not None
    workers = num_workers_of(recipe.runtime, False, world.local_size)
    with world.together():
        train_set, validation = _load_splits(recipe, source, record, workers, folder, display, world)
        skipped = {
            split.name: {item.key: item.reason for item in images.skipped}
            for split, images in ((source.train, train_set), (source.val, validation))
        }
    main_skipped = world.from_main(skipped)
    with world.together():
        if skipped != main_skipped:
            raise UserError("other images than on rank 0 cannot be read here; give all machines the same data.")
        if world.is_main:
            write_text(folder.data, json.dumps({**record, "skipped": skipped}, indent=1))
    statistics = _statistics(source, train_set, folder, workers, display, world)
    return RunData(source, train_set, validation, statistics)


def _load_splits(
    recipe: Recipe,
    source: Source,
    record: dict[str, Any],
    workers: int,
    folder: RunFolder,
    display: ProgressDisplay,
    world: World,
) -> list[ImageSet]:
    limit = recipe.data.memory_limit_gb
    sets = []
    for split in (source.train, source.val):
        assert split is not None
        known = record.get("skipped", {}).get(split.name)
        available = free_memory_bytes() // 2 if limit is None else int(limit * 2**30)
        images = load_images(
            split,
            recipe.data.image_size,
            num_workers=workers,
            max_unreadable=recipe.data.max_unreadable,
            memory_limit_bytes=available // world.local_size,  # every process holds its own copy
            on_progress=display.counter(f"Reading {split.name} images"),
            known_skipped=known,
        )
        sets.append(images)
        if images.skipped:
            first = images.skipped[0]
            display.message(
                f"{len(images.skipped)} unreadable image(s) of the {split.name} split are left out (listed in "
                f"{folder.data}), the first: {first.key}: {first.reason}."
            )
        for note in images.notes:
            display.message(note)
    return sets


def _statistics(
    source: Source, images: ImageSet, folder: RunFolder, num_workers: int, display: ProgressDisplay, world: World
) -> Statistics:
    """Computed once, then kept with the run; those that come with the data are taken where they are of these images."""
    statistics = None
    with world.together():
        if world.is_main:
            statistics = _kept_statistics(folder, display) or _given_statistics(source, images)
    statistics = world.from_main(statistics)
    if statistics is None:
        # Shared, since none waits for another longer than parallel.timeout_minutes; sums of whole numbers are exact.
        with world.together():
            counter = display.counter("Mean image and colour covariance")
            sums = sums_over(images, world.share(len(images)), num_workers, counter)
        for part in sums:
            world.sum(torch.from_numpy(part))
        statistics = from_sums(*sums, len(images))
    with world.together():
        if world.is_main and not folder.statistics.is_file():
            write_atomically(folder.statistics, lambda file: np.savez(file, **vars(statistics)))
    return statistics


def _kept_statistics(folder: RunFolder, display: ProgressDisplay) -> Statistics | None:
    if not folder.statistics.is_file():
        return None
    try:
        with np.load(folder.statistics, allow_pickle=False) as file:
            saved = {key: file[key] for key in file.files}
        return Statistics(**{**saved, "num_images": int(saved["num_images"])})
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
        display.message(f"{folder.statistics} is damaged; it is computed again.")
        folder.statistics.unlink(missing_ok=True)
        return None


def _given_statistics(source: Source, images: ImageSet) -> Statistics | None:
    if source.load_statistics is None or images.skipped:
        return None
    given = source.load_statistics()
    side = images.image_size
    fits = given.num_images == len(images) and given.mean_image.shape == (side, side, 3)
    return given if fits else None

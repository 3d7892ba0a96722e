"""A whole run: open the data, claim the folder, train or continue, evaluate, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from alexnet.config import Recipe
from alexnet.config_io import TRANSFER_RECIPE, load_recipe
from alexnet.data.loader import TrainingLoader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.sampler import ImageOrder, ShardWindows, StagedOrder
from alexnet.data.squares import ImageSet
from alexnet.errors import UserError
from alexnet.evaluation.report import EvaluationReport
from alexnet.models import AlexNet, build_network, compare
from alexnet.reporting.metrics_log import MetricsLog, NoLog, open_sinks
from alexnet.reporting.progress import Mode
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.reporting.report import save_report_images, write_report
from alexnet.runtime.device import Execution, describe_choice, num_workers_of
from alexnet.runtime.distributed import World, join_world
from alexnet.runtime.environment import describe_environment
from alexnet.runtime.files import read_json, write_text
from alexnet.runtime.process_settings import restored_settings, return_freed_memory
from alexnet.training.begin import begin_run, last_checkpoint
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.checkpoint_files import checkpoint_file
from alexnet.training.initial_weights import recipe_with_init
from alexnet.training.network import BegunNetwork
from alexnet.training.parallelism import rows_to_read
from alexnet.training.run_data import RunData, load_run_data
from alexnet.training.run_folder import RunFolder
from alexnet.training.trainer import Trainer

_NUM_EXAMPLES = 8


@dataclass(frozen=True)
class RunSummary:
    """What a run came to; the contents of summary.json."""

    output: Path
    finished: bool
    """False when a signal stopped the run; the same command continues it."""
    values: dict[str, Any]
    """summary.json: errors as fractions with their protocol, step, images_per_second. Empty when not finished, and in
    processes that are not the main one."""
    stopped_by: int | None = None
    """The number of that signal, in the process that got it."""

    @property
    def checkpoint(self) -> Path:
        """The weights that the final evaluation is of, as `values["checkpoint"]` says: "last" or "best"."""
        return checkpoint_file(self.output)

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the lowest validation error, which therefore flatters them."""
        return self.output / "checkpoints" / "best.pt"


@restored_settings()
def train(
    recipe: Recipe | str | Path | None = None,
    data: str = "digits",
    output: str | Path = "runs/digits",
    *,
    overrides: Sequence[str] = (),
    init: str | Path | None = None,
    progress: Mode | ProgressDisplay = "auto",
) -> RunSummary:
    """Train by a recipe on a data set, into a run's folder; the same call on the same folder continues the run.

    recipe: a Recipe, a recipe's name or file, or None for `digits` (with init, for `transfer`). data: see
    `alexnet.data.sources.open_source`. overrides: "section.key=value" texts laid over the recipe. init: a checkpoint
    to begin with; its network and the form of its images take the place of the recipe's, where no override says
    otherwise. progress: "auto", "bars", "plain" or "silent", or a display in use. What a training changes in the
    process is put back at its end, see `restored_settings`. Raises UserError for what the caller can mend, RunError
    when the run itself fails.
    """
    folder, note = RunFolder(Path(output)), ""
    if isinstance(recipe, Recipe):
        if overrides or init is not None:
            raise UserError("overrides and init belong to a recipe's name or file; change a Recipe object itself.")
    elif init is None:
        recipe = load_recipe(recipe, overrides)
    else:
        recipe, note = recipe_with_init(recipe or TRANSFER_RECIPE, overrides, str(init), folder.saved_recipe())
    with join_world(recipe.parallel.timeout_minutes) as world:
        if not world.is_main:
            progress = "silent"
        with nullcontext(progress) if isinstance(progress, ProgressDisplay) else ProgressDisplay(progress) as display:
            try:
                if note:
                    display.message(note)
                return _run(recipe, data, folder, display, world)
            finally:
                folder.close()
                return_freed_memory()


def _run(recipe: Recipe, data_name: str, folder: RunFolder, display: ProgressDisplay, world: World) -> RunSummary:
    source, recipe, network, execution = begin_run(recipe, data_name, folder, world)
    if world.from_main(folder.summary.is_file()):
        return _already_finished(folder, display, world)
    notes = [*network.notes, *source.notes, describe_choice(execution)]
    if world.size > 1:
        notes.append(f"{world.size} processes share the {recipe.train.batch_size} images of a step.")
    for note in notes:
        display.message(note)
    data = load_run_data(recipe, source, folder, display, world)
    trainer = _begin_or_continue(recipe, data_name, network, data, folder, execution, display, world)
    try:
        if not trainer.fit():
            display.message(
                f"Stopped at step {trainer.state.step} of {trainer.num_steps}, everything saved; "
                "the same command goes on from there."
            )
            return RunSummary(folder.path, False, {}, stopped_by=trainer.stop.number)
        return RunSummary(folder.path, True, _finish(recipe, trainer, data, folder, display))
    finally:
        trainer.log.close()


def _already_finished(folder: RunFolder, display: ProgressDisplay, world: World) -> RunSummary:
    values = read_json(folder.summary) if world.is_main else {}
    display.message(f"{folder.path} holds this run already, finished; its report is {folder.path / 'report.html'}.")
    if world.is_main and not (folder.path / "report.html").is_file():
        write_report(folder.path)
    return RunSummary(folder.path, True, values)


def _begin_or_continue(
    recipe: Recipe,
    data_name: str,
    network: BegunNetwork,
    data: RunData,
    folder: RunFolder,
    execution: Execution,
    display: ProgressDisplay,
    world: World,
) -> Trainer:
    """A trainer at the run's beginning, or at its last checkpoint where there is one, and the first line of its log."""
    with world.together():
        checkpoint = last_checkpoint(folder, display, set_aside=True) if world.is_main else None
        step = checkpoint.step if checkpoint is not None else 0
        log = _open_log(recipe, folder, step) if world.is_main else NoLog()
    checkpoint = world.from_main(checkpoint)
    trainer = build_trainer(
        recipe,
        data_name,
        network,
        data,
        folder,
        checkpoint=checkpoint,
        log=log,
        execution=execution,
        display=display,
        world=world,
    )
    if checkpoint is None:
        if world.is_main:
            write_text(folder.environment, json.dumps(trainer.description["environment"], indent=1))
        log.write("start", step=0, num_steps=trainer.num_steps, num_images=len(data.train), num_processes=world.size)
    else:
        display.message(f"Continuing at step {trainer.state.step} of {trainer.num_steps}.")
        log.write("resume", step=trainer.state.step, epoch=trainer.epoch, num_processes=world.size)
    return trainer


def build_trainer(
    recipe: Recipe,
    data_name: str,
    network: BegunNetwork,
    data: RunData,
    folder: RunFolder,
    *,
    checkpoint: Checkpoint | None,
    log: MetricsLog | NoLog,
    execution: Execution,
    display: ProgressDisplay,
    world: World,
) -> Trainer:
    """Everything `Trainer.fit` needs, restored from the checkpoint where there is one. Writes nothing."""
    if checkpoint is not None:
        network = _network_of_run(network, checkpoint, display)
    model = network.model
    preprocessing = _preprocessing(recipe, network, data, checkpoint)
    description = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "image_size": model.image_size,
        "classes": data.source.classes,
        "class_names": data.source.class_names,
        "preprocessing": preprocessing,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "data": data_name,
        "environment": {**describe_environment(), **network.record},
    }
    trainer = Trainer(
        recipe,
        model,
        _build_loader(recipe, model, data, execution, world),
        data.validation,
        preprocessing,
        execution=execution,
        world=world,
        folder=folder,
        description=description,
        log=log,
        display=display,
        copied=network.copied,
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
    return trainer


def _network_of_run(network: BegunNetwork, checkpoint: Checkpoint, display: ProgressDisplay) -> BegunNetwork:
    """Return the network that a run began with, which an earlier version may have built by another record."""
    own = checkpoint.architecture
    differences = compare(own, network.model.architecture)
    if not differences:
        return network
    what = "; ".join(f"{item.layer} {item.field}: {item.a}, now {item.b}" for item in differences)
    display.message(f"This run began with another {own.name} than today's, and continues with its own ({what}).")
    return network._replace(model=build_network(own, checkpoint.num_classes, image_size=checkpoint.image_size))


def _preprocessing(
    recipe: Recipe, network: BegunNetwork, data: RunData, checkpoint: Checkpoint | None
) -> Preprocessing:
    """How images become inputs: as the copied weights know them, or by this training set's own mean.

    A run that goes on takes it from its checkpoint, since what it began with may be gone.
    """
    model = network.model
    if checkpoint is not None and recipe.model.init is not None:
        return checkpoint.preprocessing
    if network.preprocessing is not None:
        return network.preprocessing
    return Preprocessing(
        image_size=recipe.data.image_size,
        crop_size=model.image_size,
        input_scale=model.architecture.input_scale,
        channel_order=model.architecture.channel_order,
        mean_mode=recipe.augment.mean,
        mean_image=torch.from_numpy(data.statistics.mean_image),
    )


def _open_log(recipe: Recipe, folder: RunFolder, step: int) -> MetricsLog:
    values = recipe.model_dump(mode="json", exclude_none=True)
    sinks = open_sinks(recipe.logging, folder.path, values, step=step)
    return MetricsLog(folder.metrics, sinks, keep_until_step=step)


def _build_loader(recipe: Recipe, model: AlexNet, data: RunData, execution: Execution, world: World) -> TrainingLoader:
    return TrainingLoader(
        data.train,
        data.statistics,
        recipe.augment,
        order=_order(recipe, data.train),
        batch_size=recipe.train.batch_size,
        crop_size=model.image_size,
        num_workers=num_workers_of(recipe.runtime, data.train.array is not None, world.local_size),
        rows=rows_to_read(recipe, world),
        pinned=execution.device.type == "cuda",
    )


def _order(recipe: Recipe, images: ImageSet) -> ImageOrder | StagedOrder:
    """Which image comes when. What is in memory is shuffled as far as it would be if it were not."""
    data = recipe.data

    def order_of(count: int) -> ImageOrder:
        """Of the first so many images."""
        shards = None if images.storage.shards is None else images.storage.shards[:count]
        windows = None if data.shuffle_window is None or shards is None else ShardWindows(shards, data.shuffle_window)
        return ImageOrder(count, data.shuffle, recipe.seed, windows=windows)

    order, first = order_of(len(images)), data.first_images
    if first is None or first >= len(images) or data.first_images_until_epoch == 0:
        return order
    return StagedOrder(order_of(first), round(data.first_images_until_epoch * len(images)), order)


def _finish(
    recipe: Recipe, trainer: Trainer, data: RunData, folder: RunFolder, display: ProgressDisplay
) -> dict[str, Any]:
    """The final evaluation, examples, summary and report of a run whose training is done."""
    step = trainer.state.step
    world = trainer.world
    if recipe.evaluate.checkpoint == "best":
        best = world.from_main(load_checkpoint(folder.best_checkpoint) if world.is_main else None)
        assert best is not None
        step = best.step
        trainer.use_weights(best.model_state)
    report = trainer.evaluate(recipe.evaluate.views, f"Final evaluation ({recipe.evaluate.views})")
    if not world.is_main:
        return {}
    report.save(folder.evaluation)
    save_report_images(report, data.validation, folder.report_images)
    if data.source.kind in ("digits", "shapes"):
        _save_examples(report, data, folder)
    summary = {
        "top1_error": report.top1_error,
        "top1_interval": list(report.top1_interval),
        "top5_error": report.top5_error,
        "top5_interval": list(report.top5_interval),
        "loss": report.loss,
        "num_images": report.num_images,
        "split": "val",
        "views": report.views,
        "checkpoint": recipe.evaluate.checkpoint,
        "step": step,
        "num_steps": trainer.num_steps,
        "epochs": trainer.epoch,
        "best_center_error": trainer.state.best_error,
        "images_per_second": trainer.state.step * recipe.train.batch_size / max(trainer.state.train_seconds, 1e-9),
        "train_seconds": trainer.state.train_seconds,
        "data_wait_share": trainer.state.data_wait_seconds / max(trainer.state.train_seconds, 1e-9),
        "model": recipe.model.name,
        "data": data.source.name,
        "seed": recipe.seed,
        "precision": recipe.runtime.precision,
        "skipped_images": len(data.train.skipped) + len(data.validation.skipped),
    }
    trainer.log.write(
        "end", step=trainer.state.step, **{key: summary[key] for key in ("top1_error", "top5_error", "loss")}
    )
    write_text(folder.summary, json.dumps(summary, indent=1))
    path = write_report(folder.path)
    low, high = report.top1_interval
    # Of five classes every one is among the five best.
    top5 = f"top-5 {report.top5_error:.2%}, " if trainer.model.num_classes > 5 else ""
    display.message(
        f"Top-1 error {report.top1_error:.2%} (95 % interval {low:.2%} to {high:.2%}), {top5}"
        f"{report.views} views of {report.num_images} validation images, {recipe.evaluate.checkpoint} weights."
    )
    display.message(f"Report: {path}")
    return summary


def _save_examples(report: EvaluationReport, data: RunData, folder: RunFolder) -> None:
    """A few validation images of a built-in data set as files, to try `alexnet predict` on."""
    folder.examples.mkdir(exist_ok=True)
    for label, name in enumerate(data.source.class_names[:_NUM_EXAMPLES]):
        index = int(np.flatnonzero(report.labels == label)[0])
        Image.fromarray(data.validation.square(index)).save(folder.examples / f"{name}.png")

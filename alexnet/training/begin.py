"""Before a run's first step: the data is opened, the recipe filled in, the network begun, the folder claimed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from alexnet.config import Recipe
from alexnet.data.sources import open_source
from alexnet.data.splits import Source
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.runtime.device import Execution, choose_execution, configure
from alexnet.runtime.distributed import World
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.memory import available_bytes, choose_micro_batch
from alexnet.training.network import BegunNetwork, begin_network
from alexnet.training.parallelism import check_division, check_parallelism, rows_to_read
from alexnet.training.run_folder import RunFolder


class BegunRun(NamedTuple):
    """A run that has its folder."""

    source: Source
    recipe: Recipe
    """With nothing left to choose."""
    network: BegunNetwork
    execution: Execution


def begin_run(recipe: Recipe, data_name: str, folder: RunFolder, world: World) -> BegunRun:
    """Open the data everywhere; the main process alone looks into the folder and at what the network begins with.

    Raises UserError for what the caller can mend, before anything is decoded.
    """
    network = None
    with world.together():
        source = open_source(data_name, recipe.data)
        if source.train is None:
            raise UserError(f"{data_name} has no training images; it can only be evaluated on.")
        check_parallelism(recipe, world)
        if world.is_main:
            recipe = _resolve(recipe, source, folder.saved_recipe())
            recipe, network = begin_network(recipe, folder, source.classes)
            recipe = _with_micro_batch(recipe, network, world)
            folder.open(recipe, _identity(data_name, source))
    recipe = world.from_main(recipe)
    network = world.from_main(network)  # the others learn its weights again when the network is replicated
    assert network is not None
    with world.together():
        check_division(recipe, network.model, world)
        execution = configure(recipe.runtime)
    return BegunRun(source, recipe, network, execution)


def _with_micro_batch(recipe: Recipe, network: BegunNetwork, world: World) -> Recipe:
    """ "auto" becomes what fits the memory of the main process's machine now; it stays so when the run is continued."""
    if recipe.train.micro_batch_size != "auto":
        return recipe
    runtime = recipe.runtime
    device = torch.device(runtime.device)
    available = available_bytes(device) // (1 if device.type == "cuda" else world.local_size)
    num_images = len(rows_to_read(recipe, world))
    size = choose_micro_batch(recipe, network.model, getattr(torch, runtime.precision), available, num_images)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"micro_batch_size": size})})


def _identity(data_name: str, source: Source) -> dict[str, Any]:
    """What tells a run's data from others; the contents of data.json."""
    assert source.train is not None
    return {
        "source": data_name,
        "kind": source.kind,
        "fingerprint": source.fingerprint,
        "num_train": len(source.train),
        "num_val": len(source.val),
        "classes": list(source.classes),
        "class_names": list(source.class_names),
    }


def _resolve(recipe: Recipe, source: Source, saved: Recipe | None) -> Recipe:
    """The recipe with everything that was left to the data or the machine filled in.

    A run that continues elsewhere keeps the device, the precision and the form of conv1 it was begun with.
    """
    runtime = recipe.runtime
    if saved is not None:
        kept = {key: getattr(saved.runtime, key) for key in ("device", "precision", "conv1")}
        runtime = runtime.model_copy(update={k: v for k, v in kept.items() if getattr(runtime, k) == "auto"})
    execution = choose_execution(runtime)
    runtime = runtime.model_copy(
        update={
            "device": str(execution.device),
            "precision": str(execution.dtype).removeprefix("torch."),
            "conv1": execution.conv1,
        }
    )
    if saved is not None and recipe.train.micro_batch_size == "auto":
        train = recipe.train.model_copy(update={"micro_batch_size": saved.train.micro_batch_size})
        recipe = recipe.model_copy(update={"train": train})
    model = recipe.model
    if model.num_classes is None:
        model = model.model_copy(update={"num_classes": len(source.classes)})
    elif model.num_classes != len(source.classes):
        raise UserError(
            f"model.num_classes = {model.num_classes}, but the data has {len(source.classes)} classes; leave it out."
        )
    return recipe.model_copy(update={"model": model, "runtime": runtime})


def last_checkpoint(folder: RunFolder, display: ProgressDisplay, *, set_aside: bool = False) -> Checkpoint | None:
    """The youngest checkpoint of a folder that is whole; None where there is none at all.

    set_aside: give a damaged last.pt another name, so that the next save does not put it in the place of the good one
    before; for the process that holds the folder. Raises UserError where there are some and all are damaged.
    """
    path = folder.last_checkpoint
    damaged: UserError | None = None
    for file in folder.resumable():
        try:
            checkpoint = load_checkpoint(file)
        except UserError as error:
            damaged = damaged or error
            continue
        if damaged is not None:
            display.message(f"{damaged} The run goes on from the one before, {file}, of step {checkpoint.step}.")
            if set_aside and path.is_file():
                aside = path.replace(path.with_name(f"{path.name}.damaged"))
                display.message(f"The damaged file is now {aside}; it may be deleted.")
        return checkpoint
    if damaged is None:
        return None
    raise UserError(
        f"{damaged} The run cannot go on from it: delete it to start this run again; best.pt is then lost too, so "
        "copy that first if you want it."
    )

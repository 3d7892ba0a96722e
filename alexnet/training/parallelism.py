"""How the processes of a training share the work of a step: which way a recipe asks for, and what goes with it."""

from __future__ import annotations

from alexnet.config import Recipe
from alexnet.errors import UserError
from alexnet.models import AlexNet
from alexnet.models.parts import Cut, part_of
from alexnet.runtime.device import Execution
from alexnet.runtime.distributed import World
from alexnet.training.divided import ShardedClassifier, ShardedWeights, Towers
from alexnet.training.replicas import OneProcess, Replicas


def check_parallelism(recipe: Recipe, world: World) -> None:
    """Raises UserError where the recipe's way of sharing does not go with the number of processes or the rest of it."""
    parallel, size = recipe.parallel, world.size
    ways = _ways(recipe)
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} are two ways of sharing the same layers; leave one of them out.")
    if parallel.towers > 1 and size != parallel.towers:
        raise UserError(
            f"parallel.towers = {parallel.towers} puts each tower on a process of its own: start {parallel.towers} "
            f"processes, as with --devices {parallel.towers}; there {'is' if size == 1 else 'are'} {size}."
        )
    batch_size = recipe.train.batch_size
    if batch_size < size:
        raise UserError(
            f"train.batch_size = {batch_size} leaves some of {size} processes without an image; raise it, or start "
            "fewer processes."
        )
    if size == 1 or not ways:
        return
    # Passes through the network exchange something, so all processes have to make equally many.
    if parallel.towers == 1 and batch_size % size:
        raise UserError(
            f"{ways[0]} deals equal numbers of images out: train.batch_size = {batch_size} is not divisible by {size} "
            "processes."
        )
    if recipe.optimizer.rule == "lars":
        raise UserError(f"optimizer.rule = lars needs whole layers, and {ways[0]} divides them; leave one of them out.")
    if recipe.train.ema_decay:
        raise UserError(f"train.ema_decay averages whole layers, and {ways[0]} divides them; leave one of them out.")


def check_division(recipe: Recipe, model: AlexNet, world: World) -> None:
    """Raises UserError, alike in every process, where the network's layers cannot be divided as the recipe asks."""
    cut: Cut | None = None
    if recipe.parallel.towers > 1:
        cut = "towers"
    elif recipe.parallel.classifier == "shard":
        cut = "classifier"
    if world.size > 1 and cut is not None:
        part_of(model.architecture, model.num_classes, model.image_size, cut, world.size, world.rank)


def _ways(recipe: Recipe) -> list[str]:
    """The settings that divide layers among processes."""
    parallel = recipe.parallel
    asked_for = {
        f"parallel.towers = {parallel.towers}": parallel.towers > 1,
        "parallel.classifier = shard": parallel.classifier == "shard",
        "parallel.weights = shard": parallel.weights == "shard",
    }
    return [way for way, is_asked_for in asked_for.items() if is_asked_for]


def rows_to_read(recipe: Recipe, world: World) -> range:
    """The rows of a batch whose images this process needs."""
    batch_size = recipe.train.batch_size
    return range(batch_size) if recipe.parallel.towers > 1 else world.share(batch_size)


def build_parallelism(recipe: Recipe, model: AlexNet, world: World, execution: Execution) -> OneProcess:
    """By the recipe and the number of processes; both checks have passed. The model is on the device."""
    if world.size == 1:
        return OneProcess(model)
    if recipe.parallel.towers > 1:
        return Towers(model, world, execution)
    if recipe.parallel.classifier == "shard":
        return ShardedClassifier(model, world, execution)
    if recipe.parallel.weights == "shard":
        return ShardedWeights(model, world, execution)
    return Replicas(model, execution)

"""One process of several, for test_parallelism.py: steps of small networks, shared in every way, against one process.

Prints a line for each result; torchrun starts it.
"""

from __future__ import annotations

import copy
import json
import sys

import numpy as np
import torch
from small_networks import small

from alexnet.config import OptimizerConfig
from alexnet.config_io import load_recipe
from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.models import build_network
from alexnet.runtime.device import Execution
from alexnet.runtime.distributed import World, held_here, join_world
from alexnet.runtime.processes import end_process
from alexnet.runtime.randomness import draw_dropout_masks
from alexnet.training.optimizer import build_optimizer
from alexnet.training.parallelism import build_parallelism, rows_to_read
from alexnet.training.step import train_step

BATCH_NORM = "batch norm"
"""An argument: its statistics are looked at, and nothing else."""
BATCH_SIZE, NUM_CLASSES, SIDE, STEPS = 12, 5, 67, 3
WAYS = {
    "replicas": ("as_run", []),
    "towers": ("as_run", ["parallel.towers=2"]),
    "towers of the paper": ("paper", ["parallel.towers=2"]),
    "towers that talk in fc8 alone": ("no_communication", ["parallel.towers=2"]),
    "classifier": ("as_run", ["parallel.classifier=shard"]),
    "classifier behind dropout": ("torchvision", ["parallel.classifier=shard"]),
    "weights": ("as_run", ["parallel.weights=shard"]),
}


def batch_of(step: int, rows: range) -> Batch:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, NUM_CLASSES, (BATCH_SIZE,), generator=generator)
    crops = torch.randint(0, 256, (BATCH_SIZE, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    part = slice(rows.start, rows.stop)
    return Batch(
        step, np.arange(BATCH_SIZE)[part], labels[part], crops[part],
        torch.zeros(len(rows), 2, dtype=torch.int64), torch.zeros(len(rows), dtype=torch.bool), None, 1.0,
    )  # fmt: skip


def train(model, recipe, world: World, dtype: torch.dtype, micro_batch_size: int):
    """Losses over all processes, weights and velocities after a few steps, as the whole network has them."""
    execution = Execution(torch.device("cpu"), dtype, "direct")
    sharing = build_parallelism(recipe, model, world, execution)
    optimizer = build_optimizer(sharing.trained, OptimizerConfig(lr=1e-3))
    preprocessing = Preprocessing(
        image_size=SIDE, crop_size=SIDE, input_scale=model.architecture.input_scale, channel_order="rgb",
        mean_mode="channel", mean_image=torch.full((SIDE, SIDE, 3), 127.0),
    )  # fmt: skip
    layers = {name: (features, 0.5) for name, features in model.dropout_layers.items()}
    rows, losses = rows_to_read(recipe, world), []
    for step in range(STEPS):
        masks = draw_dropout_masks(layers, seed=0, step=step, batch_size=BATCH_SIZE, device=torch.device("cpu"))
        sharing.trained.train()
        result = train_step(
            sharing.network, optimizer, batch_of(step, rows), preprocessing=preprocessing,
            dropout_masks=sharing.own_masks(masks, rows), micro_batch_size=micro_batch_size, label_smoothing=0.0,
            device=torch.device("cpu"), dtype=dtype, sharing=sharing, batch_size=BATCH_SIZE,
        )  # fmt: skip
        losses.append(float(world.sum(result.loss.clone())))
    sharing.gather()
    state = sharing.gather_optimizer(optimizer)
    # Back and forth again: nothing may change.
    sharing.scatter()
    sharing.scatter_optimizer(optimizer, state)
    again = sharing.gather_optimizer(optimizer)
    for index, held in state["state"].items():
        assert torch.equal(held["velocity"], again["state"][index]["velocity"])
    for parameter, held in optimizer.state.items():
        assert held["velocity"].stride() == held_here(parameter).stride()  # as before: the next step is the same
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    sharing.gather()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    weights = {name: value for name, value in weights.items() if value.is_floating_point()}
    velocities = torch.cat([held["velocity"].flatten() for _, held in sorted(state["state"].items())])
    return losses, weights, velocities


def distance(model, one, other) -> float:
    """How far apart two results are, as a share of how far the training has come: the worst layer, loss or velocity."""
    (losses, weights, velocities), (expected_losses, expected_weights, expected_velocities) = one, other
    before = model.state_dict()
    return max(
        *(
            float((weights[key] - value).norm() / (value - before[key]).norm())
            for key, value in expected_weights.items()
        ),
        *(abs(a - b) / b for a, b in zip(losses, expected_losses, strict=True)),
        float((velocities - expected_velocities).norm() / expected_velocities.norm()),
    )


def compare_batch_norms() -> None:
    """After training in each way: in how many processes the whole network is another one than in the first."""
    with join_world(2) as world:
        for way in ("towers=2", "classifier=shard", "weights=shard", "timeout_minutes=2"):
            recipe = load_recipe("as-run-2012", [f"parallel.{way}", f"train.batch_size={BATCH_SIZE}"])
            model = build_network(small("bn"), NUM_CLASSES, image_size=SIDE)
            _, weights, _ = train(model, recipe, world, torch.float32, BATCH_SIZE)
            everywhere = world.gather(weights)
            others = [
                any(not torch.equal(state[name], value) for state in everywhere) for name, value in weights.items()
            ]
            moved = bool(weights["bn1.running_mean"].any())
            if world.is_main:
                print(json.dumps([way, moved, sum(others)]), flush=True)


def main() -> None:
    """Every way: a whole batch, micro-batches, and bfloat16, whose rounding differs with the shapes."""
    torch.set_num_threads(1)
    with join_world(2) as world:
        for name, (variant, overrides) in WAYS.items():
            alone = load_recipe("as-run-2012", [f"train.batch_size={BATCH_SIZE}"])
            shared = load_recipe("as-run-2012", [*overrides, f"train.batch_size={BATCH_SIZE}"])
            model = build_network(small(variant), NUM_CLASSES, image_size=SIDE)
            for dtype, micro in ((torch.float32, BATCH_SIZE), (torch.float32, 4), (torch.bfloat16, BATCH_SIZE)):
                expected = train(copy.deepcopy(model), alone, World(), dtype, BATCH_SIZE)
                result = train(copy.deepcopy(model), shared, world, dtype, micro)
                worst = max(world.gather(distance(model, result, expected)))
                if world.is_main:
                    print(json.dumps([name, str(dtype), micro, worst]), flush=True)


if __name__ == "__main__":
    compare_batch_norms() if sys.argv[1:] == [BATCH_NORM] else main()
    end_process(0)  # as the command does

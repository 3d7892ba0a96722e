"""Batches of 8,192 images: LARS beside the plain rule, whose rate has to be smaller.

AlexNet with batch normalisation by the recipe of its authors (You, Gitman and Ginsburg 2017; the recipe bn-8k), with
less: inputs of 67 px, so many steps as are enough to see who learns, and the batch added up from micro-batches. The
plain rule gets the rate of LARS, the authors' rate for 512 images in proportion to the batch, and that rate as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alexnet.config import Recipe
from alexnet.data.sources import open_source
from alexnet.errors import UserError
from alexnet.reporting.study_figures import losses_beside
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import Workbench, error_percent
from alexnet.training.watch import TOLERANCE, guessing_loss

_BATCH_SIZE = {"full": 8192, "small": 1024}
_STEPS = {"full": 24, "small": 4}
_LARS_RATE = {"full": 10.0, "small": 2.0}
"""The authors' for 8,192 and for 1,024 images (nvcaffe-0.16, models/alexnet_bn/solver_8K.prototxt and its comment)."""
_RATE_OF_512 = 0.08
"""The authors' for 512 images with the plain rule (solver.prototxt there)."""
_WARMUP = 0.2
"""Of the steps; the authors' 600 of 15,600 would be less than one step here."""
WINDOW = 3
"""Steps that the last loss is the mean of."""


class Way(NamedTuple):
    """A rule at a rate."""

    rule: str
    lr: float

    @property
    def name(self) -> str:
        return f"{'LARS' if self.rule == 'lars' else 'plain'}, rate {self.lr:g}"

    @property
    def label(self) -> str:
        return f"{'lars' if self.rule == 'lars' else 'plain'}-{self.lr:g}"


class Result(NamedTuple):
    """How a training went."""

    losses: np.ndarray
    """Nats, of every batch before its update, as far as they are finite."""
    error: float | None
    """Percent of the validation images after the last step; None where the loss was not finite before."""

    @property
    def last_loss(self) -> float:
        return float(self.losses[-WINDOW:].mean())


def run(bench: Workbench) -> Outcome:
    """Train every way with every seed, and say which of them learn."""
    batch_size = _BATCH_SIZE[bench.scale]
    ways = (
        *(Way(rule, _LARS_RATE[bench.scale]) for rule in ("lars", "sgd")),
        *(Way("sgd", _RATE_OF_512 * factor) for factor in (batch_size / 512, 1)),
    )
    source = open_source(bench.data, bench.recipe("bn-8k").data)
    if source.train is None or source.val is None:
        raise UserError(f"{bench.data} has no training images, or none to be evaluated on.")
    num_images = len(source.train)
    guessing = guessing_loss(source.train.labels, len(source.classes))
    results = {
        way: {seed: _train(bench, way, recipe_of(bench, way, num_images, seed)) for seed in bench.seeds} for way in ways
    }
    curves = {way.name: next(iter(of_seeds.values())).losses for way, of_seeds in results.items()}
    figure = bench.save_figure("large-batch", losses_beside(curves, guessing, "guessing", WINDOW))
    rows = [row for way, of_seeds in results.items() for row in _rows(bench, way, of_seeds, len(source.val))]
    return Outcome(tuple(rows), (figure,), (_about(bench, num_images, guessing), *_verdicts(results, guessing)))


def recipe_of(bench: Workbench, way: Way, num_images: int, seed: int) -> Recipe:
    """The recipe bn-8k on small inputs, for a few steps."""
    batch_size, steps = _BATCH_SIZE[bench.scale], _STEPS[bench.scale]
    epochs_per_step = batch_size / num_images
    return bench.recipe(
        "bn-8k",
        *("model.image_size=67", "data.image_size=72", "train.micro_batch_size=128", f"train.batch_size={batch_size}"),
        *(f'optimizer.rule="{way.rule}"', f"optimizer.lr={way.lr}"),
        *(f"train.epochs={steps * epochs_per_step}", f"schedule.warmup_epochs={_WARMUP * steps * epochs_per_step}"),
        *("train.evaluate_every_epochs=100000", "logging.log_every_steps=1"),
        seed=seed,
    )


def _train(bench: Workbench, way: Way, recipe: Recipe) -> Result:
    """Train, or take what was finished before; weights and batches are not kept."""
    run = bench.train_or_diverge(way.label, recipe)
    for file in (*(run.folder / "checkpoints").glob("*.pt"), run.folder / "diverged.npz"):
        file.unlink(missing_ok=True)  # a gigabyte that nobody needs; the log says what happened
    losses = np.array([event["loss"] for event in run.events_of("step")], dtype=np.float64)
    return Result(losses, error_percent(run) if run.is_finished else None)


def _rows(bench: Workbench, way: Way, of_seeds: dict[int, Result], num_val: int) -> list[Row]:
    steps, batch_size = _STEPS[bench.scale], _BATCH_SIZE[bench.scale]
    after = f"after {steps} steps of {batch_size:,} images"
    finished = {seed: result for seed, result in of_seeds.items() if result.error is not None}
    broken = {seed: float(len(result.losses)) for seed, result in of_seeds.items() if result.error is None}
    rows = []
    if broken:
        protocol = f"steps before the loss is not finite, of {steps} of {batch_size:,} images"
        rows.append(Row(f"{way.name}: steps until it diverges", "steps", protocol, broken))
    if finished:
        losses = {seed: result.last_loss for seed, result in finished.items()}
        errors = {seed: result.error for seed, result in finished.items() if result.error is not None}
        rows += [
            Row(f"{way.name}: last loss", "nats", f"mean of the last {WINDOW} of {steps} training batches", losses),
            Row(
                f"{way.name}: error", "%", f"{num_val:,} validation images, centre crop, {after}", errors,
                num_images=num_val,
            ),
        ]  # fmt: skip
    return rows


def _about(bench: Workbench, num_images: int, guessing: float) -> str:
    steps, batch_size = _STEPS[bench.scale], _BATCH_SIZE[bench.scale]
    return (
        f"{steps} steps of {batch_size:,} images out of {num_images:,}, on inputs of 67 px, in micro-batches of 128; "
        f"every way rises to its rate over the first {_WARMUP:.0%} of the steps and then falls as (1 - t)^2. Guessing "
        f"has a loss of {guessing:.3f}."
    )


def _verdicts(results: dict[Way, dict[int, Result]], guessing: float) -> list[str]:
    sentences = []
    for way, of_seeds in results.items():
        for seed, result in of_seeds.items():
            if result.error is None:
                what = f"diverges: the loss is not finite after {len(result.losses)} steps"
            else:
                learns = "learns" if result.last_loss < (1 - TOLERANCE) * guessing else "does not learn"
                highest = float(result.losses.max())
                what = f"{learns}: loss {result.last_loss:.3f} in the end, {highest:.3g} at most"
            sentences.append(f"{way.name}, seed {seed}: {what}.")
    return sentences


STUDY = Study(
    name="large-batch",
    title="8,192 images a step: LARS beside the plain rule",
    section="not in the paper; You, Gitman and Ginsburg 2017, arXiv:1708.03888",
    data="any labelled images with a validation set; 5,000 of ten classes are enough",
    cost="4 trainings of 24 steps of 8,192 images: half an hour on one CPU core with fast bfloat16",
    run=run,
    sets=(
        *("model.image_size", "data.image_size", "train.batch_size", "train.micro_batch_size", "train.epochs"),
        *("optimizer.rule", "optimizer.lr", "schedule", "train.evaluate_every_epochs", "logging.log_every_steps"),
        "evaluate.views",
    ),
    small=f"{_STEPS['small']} steps of {_BATCH_SIZE['small']:,} images",
)

"""Why the loss stays at ln C in most ports: six ways to begin, what reaches each layer, and when learning begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet.config import Recipe
from alexnet.data.sources import open_source
from alexnet.doctor.activations import MEAN_IMAGES, NUM_IMAGES, preprocessing_of, read_squares, signals_of
from alexnet.errors import UserError
from alexnet.reporting.run_record import RunRecord
from alexnet.reporting.study_figures import layer_panels, losses_beside
from alexnet.reproduce.record import number
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import Workbench
from alexnet.training.network import build_recipe_network
from alexnet.training.signals import LayerSignal, Signals, find_cause
from alexnet.training.watch import guessing_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_STEPS = {"full": 300, "small": 100}
SMALL_SIZE = ("model.image_size=67", "data.image_size=72")
"""The smallest input that leaves the network all its layers; a step takes a quarter of the time or less."""
BATCH_SIZE = 32
WINDOW = 20
CLEARLY_BELOW = 0.05
"""Learning has begun where the mean loss of WINDOW steps is lower than that of guessing by this share."""


@dataclass(frozen=True)
class Start:
    """A way to begin."""

    label: str
    name: str
    """For people."""
    overrides: tuple[str, ...]


_PAPER = ("model.name=paper", "optimizer.bias_lr_factor=1.0")
STARTS = (
    Start("as-run", "as run", ("model.name=as_run",)),
    Start("paper", "paper's text", _PAPER),
    # What most ports do: the paper's numbers, meant for pixels of 0-255, on normalised images (paper.md 6, P1).
    Start("paper-unit", "paper's text, unit inputs", (*_PAPER, "model.input_scale=unit")),
    Start("caffe", "as run, Caffe's initial values", ("model.name=as_run", "model.initialization=caffe")),
    # Between the first two: everything as it was run but for the std of conv3, conv4 and conv5.
    Start("paper-std", "as run, the paper's initial values", ("model.name=as_run", "model.initialization=paper")),
    Start("torch", "as run, torch's defaults", ("model.name=as_run", "model.initialization=torch_default")),
)


class Beginning(NamedTuple):
    """How a network begins: its signals before the first step, and the losses of the first steps."""

    start: Start
    recipe: Recipe
    signals: Signals
    input_scale: str
    losses: np.ndarray
    """(steps,) nats, the loss of every batch before its update."""
    guessing: float
    """The loss of a network that guesses, nats: ln C where the classes are equally common."""
    num_classes: int
    diverged: bool
    """Whether a loss that is not finite came after these."""

    @property
    def weighted(self) -> list[LayerSignal]:
        """The layers with weights."""
        return [layer for layer in self.signals.layers if layer.gradient_rms is not None]

    @property
    def learns_from(self) -> int | None:
        """The first step at which the mean of the last WINDOW losses is clearly below guessing; None: at none."""
        return first_below(self.losses, (1 - CLEARLY_BELOW) * self.guessing, WINDOW)


def first_below(losses: np.ndarray, level: float, window: int) -> int | None:
    """The number of steps after which the mean of the last `window` losses is below the level; None: never."""
    if len(losses) < window:
        return None
    below = np.flatnonzero(np.convolve(losses, np.ones(window) / window, mode="valid") < level)
    return int(below[0]) + window if len(below) else None


def begin(bench: Workbench, start: Start, seed: int) -> Beginning:
    """Measure a start before the first step, then train it for the steps of the scale; its weights are not kept."""
    steps, small = NUM_STEPS[bench.scale], SMALL_SIZE if bench.scale == "small" else ()
    recipe = bench.recipe("folder", *_common(steps), *small, *start.overrides, seed=seed)
    signals, input_scale = _signals(bench, recipe)
    run = bench.train_or_diverge(start.label, recipe)
    for file in (run.folder / "checkpoints").glob("*.pt"):
        file.unlink()  # 700 MB a start that nobody needs; the run counts as done by its summary
    losses = np.array([event["loss"] for event in run.events_of("step")], dtype=np.float64)
    classes = run.data["classes"]
    guessing = _guessing(bench, recipe, run)
    return Beginning(start, recipe, signals, input_scale, losses, guessing, len(classes), not run.is_finished)


def _common(steps: int) -> tuple[str, ...]:
    """What all starts share: a constant rate, nothing that eases the first steps, every step in the log."""
    return (
        *("schedule.name=constant", "schedule.warmup_epochs=0", "train.label_smoothing=0", "augment.color_noise=0"),
        *(f"train.batch_size={BATCH_SIZE}", "train.epochs=0.001", f"train.min_steps={steps}"),
        *("logging.log_every_steps=1", "evaluate.views=center", "optimizer.lr=0.005"),
        # More than are looked at need not be read: of ImageNet this spares hours.
        f"data.max_train_images={max(steps, 100) * BATCH_SIZE}",
    )


def _signals(bench: Workbench, recipe: Recipe) -> tuple[Signals, str]:
    source = open_source(bench.data, recipe.data)
    if source.train is None:
        raise UserError(f"{bench.data} has no training images")
    model = build_recipe_network(recipe, len(source.classes))
    squares = read_squares(source.train, recipe.data.image_size, MEAN_IMAGES)
    if len(squares.pixels) < 2:
        raise UserError(f"{bench.data} has no two training images that can be read")
    signals, _ = signals_of(model, preprocessing_of(model, squares), squares)
    return signals, model.architecture.input_scale


def _guessing(bench: Workbench, recipe: Recipe, run: RunRecord) -> float:
    source = open_source(bench.data, recipe.data)
    assert source.train is not None
    return guessing_loss(source.train.labels, len(run.data["classes"]))


def _run(bench: Workbench) -> Outcome:
    begun = {start: {seed: begin(bench, start, seed) for seed in bench.seeds} for start in STARTS}
    rows = [row for start, of_seeds in begun.items() for row in _rows(start, of_seeds)]
    shown = [next(iter(of_seeds.values())) for of_seeds in begun.values()]
    first = shown[0]
    figures = (
        bench.save_figure("initialisation-layers", _draw_layers(shown)),
        bench.save_figure(
            "initialisation-loss",
            losses_beside({item.start.name: item.losses for item in shown}, first.guessing, _guess_name(first), WINDOW),
        ),
    )
    return Outcome(tuple(rows), figures, (*_notes(first), *_verdicts(begun), _table(shown)))


def _rows(start: Start, of_seeds: dict[int, Beginning]) -> list[Row]:
    first = next(iter(of_seeds.values()))
    batch, lr = first.recipe.train.batch_size, first.recipe.optimizer.lr
    protocol = f"mean over the first batch of {batch} training images, before any update"
    at_start = f"{NUM_IMAGES} training images before the first step, dropout off"
    firsts = {seed: float(b.losses[0]) for seed, b in of_seeds.items() if len(b.losses)}
    rows = [Row(f"{start.name}: first loss", "nats", protocol, firsts)] if firsts else []
    rows += [
        Row(f"{start.name}: logits", "", f"RMS, {at_start}", {s: b.signals.logits.rms for s, b in of_seeds.items()}),
        Row(
            f"{start.name}: told apart in fc7",
            "",
            f"what differs between images over the whole output (RMS), {at_start}",
            {s: b.weighted[-2].contrast for s, b in of_seeds.items()},
        ),
    ]
    finished = {seed: b for seed, b in of_seeds.items() if not b.diverged}
    if finished:
        steps = len(next(iter(finished.values())).losses)
        last = f"mean of the last {WINDOW} of {steps} steps of {batch} images, rate {lr:g}"
        losses = {seed: float(b.losses[-WINDOW:].mean()) for seed, b in finished.items()}
        rows.append(Row(f"{start.name}: last loss", "nats", last, losses))
    learned = {seed: float(step) for seed, b in of_seeds.items() if (step := b.learns_from) is not None}
    if learned:
        protocol = (
            f"batches of {batch}, rate {lr:g}, mean loss of {WINDOW} steps {100 * CLEARLY_BELOW:g} % below guessing"
        )
        rows.append(Row(f"{start.name}: steps until it learns", "steps", protocol, learned))
    return rows


def _guess_name(beginning: Beginning) -> str:
    guessing, classes = beginning.guessing, beginning.num_classes
    if math.isclose(guessing, math.log(classes), rel_tol=1e-3):
        return f"guessing: ln {classes} = {guessing:.3f}"
    return f"guessing: {guessing:.3f} (unequal classes; ln {classes} = {math.log(classes):.3f})"


def _notes(first: Beginning) -> list[str]:
    recipe = first.recipe
    return [
        f"{_guess_name(first)}. Every start: {recipe.train.min_steps} steps of {recipe.train.batch_size} images, a "
        f"constant rate of {recipe.optimizer.lr:g}, no warm-up. Learning begins where the mean loss of {WINDOW} steps "
        f"is {100 * CLEARLY_BELOW:g} % below guessing.",
        "Biases learn at twice the rate, as in the 2012 code, but in the starts by the paper's text, which has one "
        "rate for all. These two differ from the run in the normalisation and the order of conv1 as well "
        "(docs/reproduction.md), not in the initial values alone.",
    ]


def _verdicts(begun: dict[Start, dict[int, Beginning]]) -> list[str]:
    """A sentence a start and seed: when it learns, and what the doctor says of its first signals."""
    sentences = []
    for start, of_seeds in begun.items():
        for seed, item in of_seeds.items():
            step = item.learns_from
            when = f"does not learn within {len(item.losses)} steps" if step is None else f"learns after {step} steps"
            when += " and diverges then" if item.diverged else ""
            cause = find_cause(item.signals, item.input_scale, item.recipe.optimizer.lr)
            why = "the signal at the start looks sound" if cause is None else cause.what
            sentences.append(f"{start.name}, seed {seed}: {when}; {why}.")
    return sentences


def _table(shown: list[Beginning]) -> str:
    """Layer by layer, in Markdown: output RMS / told apart / gradient RMS."""
    lines = [
        "Output RMS / part of it that differs between images / gradient RMS of the weights, before the first step:\n",
        "| layer | " + " | ".join(item.start.name for item in shown) + " |",
        "|" + "---|" * (len(shown) + 1),
    ]
    for index, layer in enumerate(shown[0].weighted):
        cells = []
        for item in shown:
            signal = item.weighted[index]
            cells.append(f"{number(signal.rms)} / {number(signal.contrast)} / {signal.gradient_rms or 0:.1e}")
        lines.append(f"| {layer.layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _draw_layers(shown: list[Beginning]) -> Figure:
    layers = [layer.layer for layer in shown[0].weighted]
    panels = {
        "RMS of the layer's output": {b.start.name: [layer.rms for layer in b.weighted] for b in shown},
        "part of it that differs between images": {
            b.start.name: [layer.contrast for layer in b.weighted] for b in shown
        },
        "RMS of the weights' gradient": {
            b.start.name: [layer.gradient_rms or float("nan") for layer in b.weighted] for b in shown
        },
    }
    return layer_panels(layers, panels)


STUDY = Study(
    name="initialisation",
    title="Why the loss stays at ln C in most ports: six ways to begin",
    section="paper 5; the std of conv3 to conv5 is that of the 2012 code's layers-145.cfg",
    data="any labelled images; the built-in digits where none are named",
    cost="1,800 steps of 32 images; by the time of a step some 15 minutes on 2 CPU cores, not measured as a whole",
    run=_run,
    default_data="digits",
    sets=(
        *("model.name", "model.initialization", "model.input_scale", "optimizer.lr", "optimizer.bias_lr_factor"),
        *("schedule", "train.batch_size", "train.epochs", "train.min_steps", "train.label_smoothing"),
        *("augment.color_noise", "logging.log_every_steps", "data.max_train_images"),
    ),
    small=f"{NUM_STEPS['small']} steps a start in place of {NUM_STEPS['full']}, on inputs of 67 px in place of 224",
)

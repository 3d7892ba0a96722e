"""What is wrong with a run, from its folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.config import Recipe
from alexnet.data.sources import open_source
from alexnet.data.splits import Source
from alexnet.doctor.activations import NUM_IMAGES, as_sentence, read_squares, signal_rows, signals_of
from alexnet.doctor.findings import Finding, finding
from alexnet.errors import UserError
from alexnet.reporting.metrics_log import read_events
from alexnet.runtime.files import read_json
from alexnet.training.checkpoint import build_model, load_checkpoint
from alexnet.training.run_folder import RunFolder
from alexnet.training.signals import Cause, find_cause, slow_start
from alexnet.training.watch import NO_CAUSE, LossWatch, guessing_loss, patience_steps

_CHANCE_SHARE = 0.95
_LEARNT_SHARE = 0.7
_ZERO_LOSS = 0.1
_WAIT_SHARE = 0.1
_SLOWED = 0.5
_SLOW_SECONDS = 20.0

NO_LOOK = Cause(
    "no-look",
    "its last checkpoint or its data is not there to look into",
    "lower optimizer.lr or add schedule.warmup_epochs, and run alexnet doctor on the recipe with the data",
)


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, whole or not."""
    names = ("config.toml", "metrics.jsonl", "data.json")
    return path.is_dir() and sum((path / name).is_file() for name in names) >= 2


def inspect_run(path: Path) -> tuple[Recipe | None, list[Finding]]:
    """Findings about the run in a folder, and its recipe where that can be read."""
    name, folder = str(path), RunFolder(path)
    findings: list[Finding] = []
    try:
        recipe = folder.saved_recipe()
    except UserError as error:
        recipe = None
        findings.append(finding("not-a-run", name, str(error)))
    missing = [file.name for file in (folder.config, folder.metrics) if not file.is_file()]
    if missing:
        findings.append(finding("not-a-run", name, f"{path} lacks {' and '.join(missing)}."))
    events = read_events(folder.metrics)
    findings += _ending(name, folder, events)
    if recipe is not None and events:
        data = _data_record(folder)
        source, changed = _data_now(name, recipe, data)
        findings += _losses(name, folder, recipe, events, data, source)
        findings += _errors(name, events, data)
        findings += _speed(name, events)
        findings += changed
    return recipe, findings


def _data_record(folder: RunFolder) -> dict[str, Any]:
    try:
        return read_json(folder.data)
    except UserError:
        return {}


def _ending(name: str, folder: RunFolder, events: list[dict[str, Any]]) -> list[Finding]:
    findings = []
    text = folder.metrics.read_bytes() if folder.metrics.is_file() else b""
    active = _is_locked(folder)
    if text and not text.endswith(b"\n") and not active:
        findings.append(finding("torn-log", name, f"The last line of {folder.metrics.name} is not complete."))
    last = events[-1] if events else {}
    if active:
        findings.append(finding("run-active", name, f"A process is training here, at step {last.get('step', 0)}."))
    elif last.get("event") == "stop":
        findings.append(finding("run-interrupted", name, f"It was stopped at step {last['step']}."))
    elif events and not folder.summary.is_file() and not any(event["event"] == "diverged" for event in events):
        planned = next((event["num_steps"] for event in events if "num_steps" in event), None)
        of = "" if planned is None else f" of {planned}"
        findings.append(finding("run-unfinished", name, f"The log ends at step {last['step']}{of}, without an end."))
    if not folder.summary.is_file():
        free = shutil.disk_usage(folder.path).free
        size = folder.last_checkpoint.stat().st_size if folder.last_checkpoint.is_file() else 0
        if free < 2 * size or free < 2**20:
            what = (
                f"{free / 1e6:,.0f} MB are free; a checkpoint has {size / 1e6:,.0f} MB and is written beside the old."
            )
            findings.append(finding("disk-nearly-full", name, what))
    return findings


def _is_locked(folder: RunFolder) -> bool:
    """Whether a process holds the run's lock; False where the system has no such locks."""
    lock = folder.path / ".lock"
    if not lock.is_file():
        return False
    try:
        import fcntl
    except ImportError:
        return False
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _losses(
    name: str,
    folder: RunFolder,
    recipe: Recipe,
    events: list[dict[str, Any]],
    data: dict[str, Any],
    source: Source | None,
) -> list[Finding]:
    steps = [event for event in events if event["event"] == "step"]
    broken = [event for event in events if event["event"] == "diverged" or (event["event"] == "step" and
              not _is_finite(event.get("loss")))]  # fmt: skip
    if broken:
        before = [event["loss"] for event in steps if event["step"] < broken[0]["step"] and _is_finite(event["loss"])]
        rows = [f"the losses before: {', '.join(f'{loss:.4g}' for loss in before[-4:])}"] if before else []
        return [finding("diverged", name, f"The loss is not finite at step {broken[0]['step']}.", rows)]
    num_train, num_classes = data.get("num_train"), len(data.get("classes", ()))
    if not steps or not num_train or not num_classes:
        return []
    epochs_per_step = recipe.train.batch_size / num_train
    planned = next((event["num_steps"] for event in events if "num_steps" in event), steps[-1]["step"])
    # Without the images their classes are taken to be equally common.
    labels = np.arange(num_classes) if source is None or source.train is None else source.train.labels
    guessing = guessing_loss(labels, num_classes, recipe.train.label_smoothing)
    watch = LossWatch(guessing, patience_steps(planned, epochs_per_step),
                      math.ceil(recipe.schedule.warmup_epochs / epochs_per_step))  # fmt: skip
    stuck, before = None, 0
    for event in steps:
        stuck = watch.observe(event["step"], event["step"] - before, event["loss"]) or stuck
        before = event["step"]
        # What was overcome is no finding any more.
        stuck = stuck if watch.is_told else None
    if stuck is None:
        return []
    told = [event for event in events if event["event"] == "stuck" and "what" in event]
    rows = [f"while it ran, at step {told[-1]['step']}: {told[-1]['what']}"] if told else []
    cause, signals = _cause(folder, source, steps[-1]["lr"])
    what = f"{stuck.describe(num_classes)}, at step {steps[-1]['step']}. {as_sentence(cause.what)}"
    return [finding("stuck", name, what, [*rows, *signals], remedy=as_sentence(cause.remedy))]


def _cause(folder: RunFolder, source: Source | None, lr: float) -> tuple[Cause, list[str]]:
    """Why the weights of the last checkpoint do not learn the run's data, and the scales layer by layer."""
    try:
        checkpoint = load_checkpoint(next(iter(folder.resumable()), folder.last_checkpoint))
        model = build_model(checkpoint)
    except UserError:
        return NO_LOOK, []
    if source is None or source.train is None or len(source.classes) != model.num_classes:
        return NO_LOOK, []
    squares = read_squares(source.train, checkpoint.preprocessing.image_size, NUM_IMAGES)
    if not len(squares.pixels) or checkpoint.preprocessing.crop_size != model.image_size:
        return NO_LOOK, []
    signals, _ = signals_of(model, checkpoint.preprocessing, squares)
    cause = find_cause(signals, model.architecture.input_scale, lr) or slow_start(signals) or NO_CAUSE
    return cause, signal_rows(signals)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _errors(name: str, events: list[dict[str, Any]], data: dict[str, Any]) -> list[Finding]:
    """Training against validation."""
    evaluations = [event for event in events if event["event"] == "evaluation" and _is_finite(event["top1_error"])]
    steps = [event for event in events if event["event"] == "step" and _is_finite(event.get("loss"))]
    num_classes = len(data.get("classes", ()))
    if not evaluations or not steps or num_classes < 2:
        return []
    last, chance = evaluations[-1], 1 - 1 / num_classes
    recent = steps[-max(1, len(steps) // 10) :]
    train_error = float(np.mean([event["top1_error"] for event in recent]))
    if last["top1_error"] >= _CHANCE_SHARE * chance and train_error < _LEARNT_SHARE * chance:
        what = (
            f"The training error is {train_error:.1%}, the validation error {last['top1_error']:.1%}; guessing gives "
            f"{chance:.1%}."
        )
        return [finding("validation-at-chance", name, what)]
    loss = float(np.mean([event["loss"] for event in recent]))
    best = min(evaluations, key=lambda event: event["top1_error"])
    half = len(evaluations) // 2
    flat = half >= 2 and best in evaluations[: half + 1]
    if flat and loss < _ZERO_LOSS and last["top1_error"] > train_error + 0.05:
        what = (
            f"The training loss is {loss:.3g}; the validation error has not improved since epoch {best['epoch']:.3g} "
            f"({best['top1_error']:.1%}, now {last['top1_error']:.1%})."
        )
        return [finding("overfits", name, what)]
    return []


def _speed(name: str, events: list[dict[str, Any]]) -> list[Finding]:
    steps = [event for event in events if event["event"] == "step"]
    findings = []
    waits = [event["data_wait_share"] for event in steps if _is_finite(event.get("data_wait_share"))]
    rates = [event["images_per_second"] for event in steps if _is_finite(event.get("images_per_second"))]
    if waits:
        share = float(np.median(waits))
        id = "loader-bound" if share > _WAIT_SHARE else "compute-bound"
        what = f"The steps wait for images {share:.0%} of the time, at {np.median(rates):,.0f} images/s."
        findings.append(finding(id, name, what))
    # A short hiccup is nothing to speak of: the last stretches have to have taken a while.
    late = [event["seconds"] for event in steps if _is_finite(event.get("seconds"))][-4:]
    took = late[-1] - late[0] if late else 0.0
    if len(rates) >= 12 and took >= _SLOW_SECONDS and np.median(rates[-3:]) < _SLOWED * np.median(rates):
        what = f"{np.median(rates[-3:]):,.0f} images/s at the end, {np.median(rates):,.0f} over the run."
        findings.append(finding("slowed-down", name, what))
    return findings


def _data_now(name: str, recipe: Recipe, data: dict[str, Any]) -> tuple[Source | None, list[Finding]]:
    """The run's data, where it can still be opened, and a finding where it is not what the run was trained on."""
    spec = data.get("source")
    if not spec:
        return None, []
    try:
        source = open_source(spec, recipe.data)
    except UserError as error:
        what = f"The run's data, {spec}, cannot be opened now: {error}"
        return None, [finding("data-changed", name, what, severity="note")]
    if source.fingerprint != data.get("fingerprint"):
        counts = f"{data.get('num_train')} training images then, {0 if source.train is None else len(source.train)} now"
        what = f"{spec} has other images or classes than when it was trained: {counts}."
        return source, [finding("data-changed", name, what)]
    return source, []

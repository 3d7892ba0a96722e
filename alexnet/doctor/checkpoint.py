"""What is wrong with a checkpoint: alone, and for a data set."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.config import DataConfig, Recipe
from alexnet.data.preprocessing import Preprocessing
from alexnet.doctor.activations import center_crops, read_squares
from alexnet.doctor.data import DataFacts
from alexnet.doctor.entry import Severity
from alexnet.doctor.findings import Finding, capped, finding, some
from alexnet.errors import UserError
from alexnet.training.checkpoint import FORMAT, FORMAT_VERSION, Checkpoint, build_model, load_checkpoint
from alexnet.training.checkpoint_files import checkpoint_file

_CHANCE_SHARE = 0.97
_NUM_IMAGES = 64
_MEAN_DIFFERENCE = 40.0
_WORSE_DEVIATIONS = 4
_WORSE_ERROR = 0.15


def inspect_checkpoint(given: Path) -> tuple[Checkpoint | None, list[Finding]]:
    """Findings about a checkpoint file (or a run's folder), and the checkpoint; None where it cannot be used."""
    name = str(given)
    try:
        path = checkpoint_file(given)
    except UserError as error:
        return None, [finding("not-a-checkpoint", name, str(error))]
    refused = None if path.suffix == ".safetensors" else _inspect_file(name, path)
    if refused is not None:
        return None, [refused]
    try:
        checkpoint = load_checkpoint(path)
    except UserError as error:
        return None, [finding("checkpoint-damaged", name, str(error))]
    findings = _weights(name, checkpoint)
    findings += _preprocessing(name, checkpoint)
    if not findings:
        findings += _result(name, checkpoint)
    return checkpoint, findings


def _inspect_file(name: str, path: Path) -> Finding | None:
    """Why the file is no checkpoint that can be read here, from its container and its first fields."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4)
    if size == 0:
        return finding("checkpoint-damaged", name, f"{path} is empty.")
    if not zipfile.is_zipfile(path):
        if start[:2] == b"PK":
            what = f"{path} begins as a checkpoint and is cut off (after {size:,} bytes)."
            return finding("checkpoint-damaged", name, what)
        return finding("not-a-checkpoint", name, f"{path} is not a file of torch.save ({size:,} bytes).")
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            contents: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what damage makes the unpickler raise has no end of kinds
        with zipfile.ZipFile(path) as archive:
            is_torch = any(entry.endswith("data.pkl") for entry in archive.namelist())
        id = "checkpoint-damaged" if is_torch else "not-a-checkpoint"
        return finding(id, name, f"{path} cannot be read ({type(error).__name__}).")
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        keys = some([str(key) for key in contents]) if isinstance(contents, dict) else type(contents).__name__
        what = f"{path} is a PyTorch file, but not a checkpoint of alexnet."
        return finding("not-a-checkpoint", name, what, [f"it holds: {keys}"])
    if contents.get("format_version") != FORMAT_VERSION:
        what = f"{path} has format {contents.get('format_version')}; this version of alexnet reads {FORMAT_VERSION}."
        return finding("checkpoint-version", name, what)
    return None


def _weights(name: str, checkpoint: Checkpoint) -> list[Finding]:
    broken = [
        key for key, value in checkpoint.model_state.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]  # fmt: skip
    findings = []
    if broken:
        what = f"{len(broken)} of {len(checkpoint.model_state)} tensors hold nan or inf (step {checkpoint.step})."
        findings.append(finding("weights-not-finite", name, what, capped(broken)))
    try:
        build_model(checkpoint)
    except UserError as error:
        findings.append(finding("weights-do-not-fit", name, str(error)))
    return findings


def _preprocessing(name: str, checkpoint: Checkpoint) -> list[Finding]:
    preprocessing, architecture = checkpoint.preprocessing, checkpoint.architecture
    findings = []
    for field in ("input_scale", "channel_order"):
        given, meant = getattr(preprocessing, field), getattr(architecture, field)
        if given != meant:
            what = f"preprocessing.{field} = {given}, but {architecture.name} is meant for {meant}."
            findings.append(finding("input-scale", name, what))
    mean = preprocessing.mean_image
    if preprocessing.input_scale == "pixels" and mean.numel() and float(mean.abs().max()) <= 1.0:
        what = f"The mean image is within 0 to {float(mean.max()):.2g}; it should be of 0-255 pixels."
        findings.append(finding("input-scale", name, what))
    if preprocessing.crop_size != checkpoint.image_size:
        what = f"The crops have {preprocessing.crop_size} pixels, and the network takes {checkpoint.image_size}."
        findings.append(finding("preprocessing-sizes", name, what))
    return findings


def _result(name: str, checkpoint: Checkpoint) -> list[Finding]:
    chance = 1 - 1 / checkpoint.num_classes
    error = checkpoint.metrics.get("top1_error")
    is_untrained = checkpoint.step == 0 and checkpoint.imported is None
    if is_untrained or (error is not None and error >= _CHANCE_SHARE * chance):
        was = "" if error is None else f"; its validation error was {error:.1%}, guessing gives {chance:.1%}"
        return [finding("untrained", name, f"Step {checkpoint.step}{_which(checkpoint)}{was}.")]
    return []


def _which(checkpoint: Checkpoint) -> str:
    return "" if checkpoint.selection is None else f", {checkpoint.selection} weights"


def inspect_checkpoint_fit(name: str, checkpoint: Checkpoint, facts: DataFacts) -> list[Finding]:
    """Whether a checkpoint fits a data set: classes, squares, and its error on a few validation images."""
    findings = _classes(name, checkpoint, facts)
    wanted = checkpoint.preprocessing.image_size
    if facts.image_size is not None and facts.image_size != wanted:
        what = f"{facts.spec} has squares of {facts.image_size} pixels; the checkpoint was trained with {wanted}."
        findings.append(finding("image-size-mismatch", name, what))
    if not any(item.severity == "problem" for item in findings):
        findings += _try(name, checkpoint, facts)
    return findings


def _classes(name: str, checkpoint: Checkpoint, facts: DataFacts) -> list[Finding]:
    known, given = list(checkpoint.classes), list(facts.classes)
    if not given:
        return []
    position = {item: i for i, item in enumerate(known)}
    unknown = [item for item in given if item not in position]
    if unknown:
        evidence = [f"unknown to the checkpoint: {some(unknown)}", f"it knows: {some(known)}"]
        numeric = all(item.isdecimal() for item in unknown)
        if numeric and not all(item.isdecimal() for item in known):
            evidence.append("the data's classes are numbers: positions or devkit ids")
        by_name = set(checkpoint.class_names) >= set(unknown)
        if by_name:
            evidence.append("they are names that the checkpoint has for its classes: rename the folders to its ids")
        what = (
            f"{len(unknown)} of the {len(given)} classes of {facts.spec} are unknown to the checkpoint, "
            f"which has {len(known)}."
        )
        return [finding("unknown-classes", name, what, evidence)]
    if len(given) < len(known):
        what = f"{facts.spec} has {len(given)} of the checkpoint's {len(known)} classes."
        return [finding("part-of-the-classes", name, what)]
    if given != known:
        places = [f"{item}: {position[item]} in the checkpoint, {i} in the data"
                  for i, item in enumerate(given) if known[i] != item]  # fmt: skip
        what = f"{len(places)} of {len(given)} classes have another position in {facts.spec} than in the checkpoint."
        return [finding("class-order", name, what, capped(places))]
    return []


def _try(name: str, checkpoint: Checkpoint, facts: DataFacts) -> list[Finding]:
    """Compare the mean colour, and the error on a few validation images with the recorded one."""
    preprocessing = checkpoint.preprocessing
    if facts.source is None or preprocessing.crop_size != checkpoint.image_size:
        return []
    squares = read_squares(facts.source.val, preprocessing.image_size, _NUM_IMAGES)
    if not len(squares.pixels):
        return []
    findings = inspect_colors(name, preprocessing, squares.pixels)
    error = checkpoint.metrics.get("top1_error")
    if error is None:
        return findings
    model = build_model(checkpoint)
    with torch.inference_mode():
        images = preprocessing.normalize(center_crops(squares.pixels, preprocessing.crop_size))
        guesses = model(images).argmax(dim=1).numpy()
    position = {item: i for i, item in enumerate(checkpoint.classes)}
    positions = np.array([position[item] for item in facts.classes])
    measured = float((guesses != positions[squares.labels]).mean())
    deviation = float(np.sqrt(max(error * (1 - error), 0.01) / len(guesses)))
    if measured > error + max(_WORSE_ERROR, _WORSE_DEVIATIONS * deviation):
        what = (
            f"On {len(guesses)} validation images of {facts.spec} the error is {measured:.0%} (centre crop"
            f"{_which(checkpoint)}); the checkpoint records {error:.1%}."
        )
        findings.append(finding("worse-than-recorded", name, what))
    return findings


def inspect_colors(
    name: str,
    preprocessing: Preprocessing,
    pixels: np.ndarray,
    *,
    severity: Severity | None = None,
    remedy: str | None = None,
) -> list[Finding]:
    """Whether the mean colour of (N, S, S, 3) squares is far from the mean that a checkpoint subtracts."""
    if not len(pixels) or preprocessing.input_scale != "pixels":
        return []
    here = pixels.mean(axis=(0, 1, 2))
    there = preprocessing.mean_image.mean(dim=(0, 1)).numpy()
    if np.abs(here - there).max() <= _MEAN_DIFFERENCE:
        return []
    rows = [f"{what}: R {m[0]:.0f}, G {m[1]:.0f}, B {m[2]:.0f}" for what, m in (("here", here), ("there", there))]
    what = f"The mean colour of {len(pixels)} images is far from that of the checkpoint's training."
    return [finding("other-images", name, what, rows, severity=severity, remedy=remedy)]


def data_config(checkpoint: Checkpoint) -> DataConfig:
    """The data section of the training, by which a set without validation images is split as it was then."""
    try:
        return Recipe.model_validate(checkpoint.recipe).data
    except ValueError:
        return DataConfig()

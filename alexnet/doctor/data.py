"""What is wrong with a data set: its folders, its classes, its images."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.config import DataConfig
from alexnet.data.prepared import DESCRIPTION, FORMAT, verify_prepared
from alexnet.data.sources import BUILT_IN, is_address, open_source, recognize
from alexnet.data.splits import Source
from alexnet.doctor.duplicates import inspect_duplicates
from alexnet.doctor.findings import Finding, capped, finding, some
from alexnet.doctor.images import inspect_images
from alexnet.doctor.tree import inspect_tree
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress
from alexnet.runtime.files import expanded_path, read_json

_IMBALANCE = 10
_NEARLY_EMPTY_SHARE = 0.1
_FEW_IMAGES = 20
_SMALL_VALIDATION = 200
_MANY_NUMBERED_CLASSES = 100


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set; enough to compare it with a recipe or a checkpoint."""

    spec: str
    """As the person gave it."""
    source: Source | None
    """None where it cannot be opened."""
    classes: tuple[str, ...] = ()
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    """Split -> (C,) number of images of each class."""
    image_size: int | None = None
    """Side of the squares of a prepared set; None where images have sizes of their own."""

    @property
    def num_train(self) -> int:
        """Training images."""
        return int(self.counts["train"].sum()) if "train" in self.counts else 0


def inspect_data(spec: str, config: DataConfig, *, full: bool) -> tuple[DataFacts, list[Finding]]:
    """Look at DATA as `alexnet train --data` takes it. `full` looks at every image instead of a sample."""
    path = _path_of(spec)
    findings: list[Finding] = []
    prepared: dict[str, Any] | None = None
    if path is not None and path.is_dir():
        prepared = _prepared_description(path)
        if prepared is not None or _has_shards(path):
            findings += _inspect_prepared(path, prepared, full=full)
        elif _is_folder_of_classes(spec, path):
            with suppress(UserError):  # a folder that cannot be listed: opening it says so
                findings += inspect_tree(path)
    try:
        source = open_source(spec, config)
    except UserError as error:
        if not any(item.severity == "problem" for item in findings):
            findings.append(finding("data-refused", spec, str(error)))
        facts = _facts_of_prepared(spec, prepared)
        return facts, [*findings, *_inspect_classes(facts)]
    facts = _facts_of_source(spec, source, None if prepared is None else prepared.get("image_size"))
    findings += _inspect_classes(facts)
    for split in (source.train, source.val):
        if split is not None and split.storage.expect is not None:
            split.storage.expect(())  # of shards on the network a few images are read, and none is downloaded
    if spec.partition(":")[0] not in BUILT_IN:
        findings += inspect_images(spec, path, source, config.max_unreadable, full=full)
        findings += inspect_duplicates(spec, path, source, full=full)
    return facts, findings


def _path_of(spec: str) -> Path | None:
    if is_address(spec) or (spec.partition(":")[0] in BUILT_IN and not Path(spec).exists()):
        return None
    if expanded_path(spec).exists():
        return expanded_path(spec)
    _, separator, rest = spec.partition(":")
    return expanded_path(rest) if separator and rest else None


def _is_folder_of_classes(spec: str, path: Path) -> bool:
    if spec.startswith("folder:"):
        return True
    try:
        return recognize(path) in ("folder", "imagenette")
    except UserError:
        return False


# ---------------------------------------------------------------- prepared data sets


def _prepared_description(path: Path) -> dict[str, Any] | None:
    try:
        description = read_json(path / DESCRIPTION)
    except UserError:
        return None
    return description if description.get("format") == FORMAT else None


def _has_shards(path: Path) -> bool:
    return any((path / "train").glob("[0-9]*.tar")) or any((path / "val").glob("[0-9]*.tar"))


def _inspect_prepared(path: Path, description: dict[str, Any] | None, *, full: bool) -> list[Finding]:
    if description is None:
        shards = len(list(path.glob("*/[0-9]*.tar")))
        what = f"{path} has {shards} shards and no dataset.json that can be read."
        return [finding("prepared-unfinished", str(path), what)]
    wrong = []
    for split in description.get("splits", {}).values():
        for shard in split.get("shards", ()):
            file = path / shard["file"]
            size = file.stat().st_size if file.is_file() else None
            if size is None:
                wrong.append(f"{shard['file']} is missing")
            elif size != shard["bytes"]:
                wrong.append(f"{shard['file']} has {size:,} bytes, not {shard['bytes']:,}")
        index = split.get("index", {}).get("file")
        if index and not (path / index).is_file():
            wrong.append(f"{index} is missing")
    if full and not wrong:
        with suppress(UserError), Progress() as display:  # a description that cannot be used: opening it says so
            changed = verify_prepared(path, display.counter(f"Reading {path.name}", unit="MB", transient=True))
            wrong = [f"{name} is not as it was written: its SHA-256 is another" for name in changed]
    if not wrong:
        return []
    what = f"{len(wrong)} files of the prepared data set {path} are not as its dataset.json says."
    return [finding("prepared-damaged", str(path), what, capped(wrong))]


def _facts_of_prepared(spec: str, description: dict[str, Any] | None) -> DataFacts:
    if description is None:
        return DataFacts(spec, None)
    counts = {
        name: np.array(split["class_counts"], np.int64)
        for name, split in description.get("splits", {}).items()
        if "class_counts" in split
    }
    return DataFacts(spec, None, tuple(description.get("classes", ())), counts, description.get("image_size"))


def _facts_of_source(spec: str, source: Source, image_size: int | None) -> DataFacts:
    counts = {
        split.name: np.bincount(split.labels, minlength=len(source.classes))
        for split in (source.train, source.val)
        if split is not None
    }
    return DataFacts(spec, source, source.classes, counts, image_size)


# ---------------------------------------------------------------- classes


def _inspect_classes(facts: DataFacts) -> list[Finding]:
    if not facts.classes:
        return []
    findings = _numbered_classes(facts)
    train, val = facts.counts.get("train"), facts.counts.get("val")
    if train is not None and (train > 0).any():
        findings += _counts_of_training(facts, train)
    if val is not None and 0 < int(val.sum()) < _SMALL_VALIDATION:
        what = f"The validation split has {int(val.sum())} images, for {len(facts.classes)} classes."
        findings.append(finding("small-validation", facts.spec, what))
    return findings


def _counts_of_training(facts: DataFacts, counts: np.ndarray) -> list[Finding]:
    findings = []
    median = float(np.median(counts))
    order = np.argsort(counts, kind="stable")
    rare = [i for i in order.tolist() if counts[i] == 1 or counts[i] < _NEARLY_EMPTY_SHARE * median]
    if rare and median > 1:
        rows = [f"{facts.classes[i]}: {counts[i]} (half of the classes have at least {median:g})" for i in rare]
        what = f"{len(rare)} of {len(facts.classes)} classes have hardly any training images."
        findings.append(finding("nearly-empty-class", facts.spec, what, capped(rows)))
    low, high = int(order[0]), int(order[-1])
    if counts[low] > 0 and counts[high] >= _IMBALANCE * counts[low]:
        share = counts[high] / counts.sum()
        what = (
            f"The class {facts.classes[high]} has {counts[high]} training images ({share:.0%} of all), "
            f"{facts.classes[low]} has {counts[low]}; always guessing the first is right {share:.0%} of the time."
        )
        findings.append(finding("class-imbalance", facts.spec, what))
    if median < _FEW_IMAGES:
        what = f"Half of the classes have at most {int(median)} training images."
        findings.append(finding("few-images", facts.spec, what))
    return findings


def _numbered_classes(facts: DataFacts) -> list[Finding]:
    """Classes named 1 ... N or 0 ... N-1: ids of a devkit, or numbers that other tools sort as text."""
    names = facts.classes
    if len(names) < 2 or not all(name.isascii() and name.isdecimal() for name in names):
        return []
    numbers = [int(name) for name in names]
    first, last = min(numbers), max(numbers)
    if sorted(numbers) != list(range(first, last + 1)) or first not in (0, 1) or len(names) <= 10:
        return []
    as_text = sorted(names)
    evidence = [f"here: {some(names)}", f"sorted as text: {some(as_text)}"]
    what = f"The {len(names)} classes are the numbers {first} to {last}"
    if len(names) < _MANY_NUMBERED_CLASSES:
        return [finding("numbered-classes", facts.spec, f"{what}.", evidence)]
    looks = ", like ILSVRC's devkit ids" if (first, last) == (1, 1000) else ""
    return [finding("devkit-ids", facts.spec, f"{what}{looks}; position and name are easily confused.", evidence)]

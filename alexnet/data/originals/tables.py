"""Lists of images: a CSV file with a column of paths and one of labels, or lines of path and label."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alexnet.data.decode import IMAGE_SUFFIXES
from alexnet.data.folders import is_image_name, sort_classes
from alexnet.data.originals.devkit import read_names
from alexnet.data.originals.imagenet import open_tree_of_notes
from alexnet.data.originals.listing import Original, OriginalSplit, class_names, wnids_of_labels
from alexnet.data.originals.trees import read_image_file
from alexnet.errors import UserError

LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
_PATHS = ("path", "image", "file", "filename", "file_name", "image_path", "filepath", "image_id", "imageid", "id")
_LABELS = ("label", "class", "wnid", "category", "target", "class_name", "class_id", "synset", "label_name")
_LABEL_START = ("noisy_labels_0", "predictionstring")
_SPLITS = ("split", "set", "subset", "partition", "is_valid")
_VAL_WORDS = ("val", "valid", "validation", "test", "true", "1")


@dataclass
class _Rows:
    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    is_val: list[bool] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def is_list(path: Path) -> bool:
    """Whether a file is taken for a list of images."""
    return path.suffix.lower() in LIST_SUFFIXES


def open_list(path: Path) -> Original:
    """The images of a list; their paths are relative to the list's folder.

    A column `split` (or is_valid) parts them; a list named train.* has its validation images in a val.* beside it.
    Raises UserError that names the line for whatever does not fit.
    """
    rows = _read_rows(path)
    beside = _validation_list(path)
    if beside is not None:
        extra = _read_rows(beside)
        rows = _Rows(
            rows.paths + extra.paths,
            rows.labels + extra.labels,
            [False] * len(rows.paths) + [True] * len(extra.paths),
            rows.lines + extra.lines,
        )
    wnids = wnids_of_labels(rows.labels, rows.paths) if all(label.isdecimal() for label in rows.labels) else {}
    labels = [wnids.get(label, label) for label in rows.labels]
    classes, note = sort_classes(sorted(set(labels)))
    if len(classes) < 2:
        raise UserError(f"{path} lists images of one class only ({classes[0]}), and two are needed. Add another.")
    label_of = {class_id: label for label, class_id in enumerate(classes)}
    splits: list[OriginalSplit | None] = []
    locations = _Locations(path.parent)
    for side in (False, True):
        chosen = [i for i, is_val in enumerate(rows.is_val) if is_val == side]
        files = [locations.find(rows.paths[i]) for i in chosen]
        splits.append(_split(path.parent, files, [label_of[labels[i]] for i in chosen]) if chosen else None)
    if locations.missing == len(rows.paths):
        raise UserError(
            f"None of the {len(rows.paths)} files that {path} lists is there; the first is {rows.paths[0]}. Paths "
            "begin at the folder of that file."
        )
    names = read_names([open_tree_of_notes(path.parent)])
    return Original(
        path.resolve().parent.name if path.stem in ("train", "labels") else path.stem,
        "list",
        tuple(classes),
        tuple(class_names(classes, names)),
        splits[0],
        splits[1],
        notes=[note] if note else [],
    )


class _Locations:
    """Finds listed files below a folder; names may lack their suffix, as Kaggle's do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing = 0
        self._suffix = ""

    def find(self, name: str) -> Path:
        path = self.folder / name
        if not is_image_name(name):
            if self._suffix and path.with_name(path.name + self._suffix).is_file():
                return path.with_name(path.name + self._suffix)
            for suffix in (".jpg", ".JPEG", ".png", *sorted(IMAGE_SUFFIXES)):
                if path.with_name(path.name + suffix).is_file():
                    self._suffix = suffix
                    return path.with_name(path.name + suffix)
        self.missing += not path.is_file()
        return path


def _split(folder: Path, files: Sequence[Path], labels: Sequence[int]) -> OriginalSplit:
    def name(i: int) -> str:
        return str(files[i].relative_to(folder)) if files[i].is_relative_to(folder) else str(files[i])

    return OriginalSplit(
        np.array(labels, np.int64),
        [file.as_posix() for file in files],
        name,
        lambda i: read_image_file(files[i], folder),
        lambda: sum(file.stat().st_size for file in files if file.is_file()),
    )


def _validation_list(path: Path) -> Path | None:
    if path.stem.lower() not in ("train", "training"):
        return None
    for name in ("val", "valid", "validation", "test"):
        beside = path.with_name(name + path.suffix)
        if beside.is_file():
            return beside
    return None


def _read_rows(path: Path) -> _Rows:
    try:
        text = path.read_text("utf-8-sig", "backslashreplace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{path} is empty; it should list a path and a label a line.")
    delimiter = max(",;\t", key=first.count)
    if first.count(delimiter) == 0:
        return _read_plain(path, lines)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        table = list(reader)
    except csv.Error as error:
        raise UserError(
            f"{path} cannot be read as a table at line {reader.line_num}: {error}. Look for a quotation mark too many."
        ) from None
    header = [cell.strip().lower() for cell in table[0]]
    at_path = _column(header, _PATHS)
    at_label = _column(header, _LABELS + _LABEL_START)
    rows = _Rows()
    if at_path is None or at_label is None:
        if any(is_image_name(cell.strip()) for cell in table[0]):  # no header
            at_path = next(i for i, cell in enumerate(table[0]) if is_image_name(cell.strip()))
            at_label, at_split, start = (1 if at_path == 0 else 0), None, 0
        else:
            raise UserError(
                f"{path} has the columns {', '.join(header)}; which are the paths and the labels is not clear. Name "
                "them path and label (and split, where validation images are listed too)."
            )
    else:
        at_split, start = _column(header, _SPLITS), 1
    for number, row in enumerate(table[start:], start=start + 1):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(at_path, at_label) or not row[at_path].strip() or not row[at_label].strip():
            raise UserError(f"Line {number} of {path} has no path or no label: {delimiter.join(row)[:80]!r}.")
        rows.paths.append(row[at_path].strip())
        label = row[at_label].strip()
        # Kaggle's solutions: the class, then boxes.
        rows.labels.append(label.split()[0] if header[at_label] == "predictionstring" else label)
        value = row[at_split].strip().lower() if at_split is not None and at_split < len(row) else ""
        rows.is_val.append(value in _VAL_WORDS)
        rows.lines.append(number)
    return _checked(path, rows)


def _read_plain(path: Path, lines: Sequence[str]) -> _Rows:
    rows = _Rows()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(.+?)\s+(\S+)", line.strip())
        if match is None:
            raise UserError(f"Line {number} of {path} is not a path and a label: {line.strip()[:80]!r}.")
        rows.paths.append(match[1])
        rows.labels.append(match[2])
        rows.is_val.append(False)
        rows.lines.append(number)
    return _checked(path, rows)


def _checked(path: Path, rows: _Rows) -> _Rows:
    if not rows.paths:
        raise UserError(f"{path} lists no images.")
    first: dict[str, int] = {}
    for file, line in zip(rows.paths, rows.lines, strict=True):
        if first.setdefault(file, line) != line:
            raise UserError(f"{path} lists {file} in the lines {first[file]} and {line}; each image has one class.")
    return rows


def _column(header: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((header.index(name) for name in wanted if name in header), None)

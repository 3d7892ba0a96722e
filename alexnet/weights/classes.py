"""What the outputs of an imported network are called: from a file, or ImageNet's thousand."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.errors import UserError

_WNID = re.compile(r"(n\d{8})[\s,]+(.+)")
_NUMBERED = re.compile(r"(\S.*?)[\s,]+(\d+)")
_LARGEST_FILE = 50_000_000
_EXAMPLE = "a line a class, in the order of the outputs: a name, or an id (wnid) and a name"


class Classes(NamedTuple):
    """Ids and names for people, in the order of the outputs, and a sentence about where they are from."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    note: str | None


def imagenet_classes() -> Classes:
    """The 1,000 classes of ILSVRC-2012 in the order of their wnids, which is that of torchvision and Caffe."""
    text = resources.files("alexnet.weights").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    rows = [line.split(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return Classes(tuple(row[0] for row in rows), tuple(row[1] for row in rows), None)


def default_classes(num_classes: int) -> Classes:
    """Of a network that nothing is said about: ImageNet's where there are 1,000, or else numbers."""
    if num_classes == 1000:
        note = "The 1,000 outputs are taken as ImageNet's classes, in the order of their ids; --classes names others."
        return imagenet_classes()._replace(note=note)
    numbers = tuple(str(number) for number in range(num_classes))
    note = f"The {num_classes:,} outputs have numbers for names; --classes FILE names them ({_EXAMPLE})."
    return Classes(numbers, numbers, note)


def read_classes(path: Path, num_classes: int) -> Classes:
    """The classes in a file: lines, or JSON as it is in use (see docs/weights.md).

    Raises UserError for a file that is none, and for another number of classes than the network has outputs.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} is no list of classes: it has {path.stat().st_size / 1e6:,.0f} MB.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"Cannot read --classes {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no list of classes; give {_EXAMPLE}.") from None
    try:
        rows = _from_json(json.loads(text)) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise UserError(f"{path} is no list of classes; give {_EXAMPLE}.") from None
    ids = tuple(row[0] for row in rows)
    if len(rows) != num_classes:
        raise UserError(f"{path} names {len(rows):,} classes, and the network has {num_classes:,} outputs.")
    twice = next((id for position, id in enumerate(ids) if ids.index(id) < position), None)
    if twice is not None:
        raise UserError(f"{path} names the class {twice!r} twice; every output needs an id of its own.")
    return Classes(ids, tuple(row[1] for row in rows), None)


def _from_lines(text: str) -> list[tuple[str, str]]:
    """`n01440764 tench` (Caffe's synset_words.txt), `/a/airfield 0` (Places), or a name a line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    wnids = [_WNID.fullmatch(line) for line in lines]
    if lines and all(wnids):
        return [(match[1], match[2]) for match in wnids if match]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered) and {int(match[2]) for match in numbered if match} == set(range(len(lines))):
        by_number = {int(match[2]): match[1] for match in numbered if match}
        return [(by_number[number], by_number[number]) for number in range(len(lines))]
    return [(line, line) for line in lines]


def _from_json(value: Any) -> list[tuple[str, str]]:
    """A list; a prepared data set's description; number -> name or [id, name]; or name -> number."""
    if isinstance(value, list):
        return [_row(item) for item in value]
    if "classes" in value:
        names = value.get("class_names") or value["classes"]
        return [(str(id), str(name)) for id, name in zip(value["classes"], names, strict=True)]
    if all(isinstance(item, int) for item in value.values()):  # torchvision's class_to_idx
        value = {str(number): name for name, number in value.items()}
    return [_row(value[str(number)]) for number in range(len(value))]


def _row(item: Any) -> tuple[str, str]:
    if isinstance(item, str):
        return item, item
    id, name = item
    return str(id), str(name)

"""WebDataset shards of labelled images, as in timm/imagenet-1k-wds: KEY.jpg beside KEY.cls or KEY.json in tar files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet.data.decode import UnreadableImage
from alexnet.data.folders import is_image_name, sort_classes
from alexnet.data.originals.devkit import read_names
from alexnet.data.originals.imagenet import open_tree_of_notes
from alexnet.data.originals.listing import Original, OriginalSplit, class_names, tree_split, wnids_of_labels
from alexnet.data.originals.trees import Tree, archive_tree
from alexnet.errors import UserError

_SHARD = re.compile(r"(.*?)[-_.]?(\d{2,})\.tar$")
_VAL = re.compile(r"(^|[-_./])(val|valid|validation|test)([-_./]|$)", re.IGNORECASE)


def find_shards(folder: Path) -> list[Path]:
    """Tar files of the folder, and of its folders, that are numbered as shards are."""
    return sorted(
        file
        for pattern in ("*.tar", "*/*.tar")
        for file in folder.glob(pattern)
        if _SHARD.match(file.name) and not re.match(r"n\d{8}\.tar$", file.name)
    )


def open_webdataset(
    shards: Sequence[Path], folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> Original:
    """The data set of some shards; val, validation or test in a shard's name marks the validation split.

    Labels are the whole numbers of .cls, or `label` of .json; where file names hold wnids, the classes are those.
    """
    sides: dict[bool, list[Path]] = {False: [], True: []}
    for shard in shards:
        sides[bool(_VAL.search(shard.relative_to(folder).as_posix()))].append(shard)
    parts: list[tuple[Tree, list[int], list[str], list[str]] | None] = []
    for side in (False, True):
        if not sides[side]:
            parts.append(None)
            continue
        tree = archive_tree(sides[side], on_progress, prefix=lambda shard: f"{shard.name}/")
        parts.append(_read_labels(tree))
    labels = [label for part in parts if part is not None for label in part[2]]
    if not labels:
        raise UserError(f"The shards in {folder} hold no images with a .cls or .json beside them.")
    wnids = _wnids(parts)
    classes, note = sort_classes(sorted({wnids.get(label, label) for label in labels}))
    names = read_names([open_tree_of_notes(folder)])
    splits: list[OriginalSplit | None] = []
    for part in parts:
        if part is None:
            splits.append(None)
            continue
        tree, images, part_labels, _ = part
        number = {label: classes.index(wnids.get(label, label)) for label in set(part_labels)}
        splits.append(tree_split(tree, images, [number[label] for label in part_labels]))
    trees = [part[0] for part in parts if part is not None]
    return Original(
        folder.resolve().name,
        "webdataset",
        tuple(classes),
        tuple(class_names(classes, names)),
        splits[0],
        splits[1],
        notes=[note] if note else [],
        damage=[sentence for tree in trees for sentence in tree.damage],
        refused=[item for tree in trees for item in tree.refused],
    )


def _wnids(parts: Sequence[tuple[Tree, list[int], list[str], list[str]] | None]) -> dict[str, str]:
    """The wnid of each label from the names of the training files; validation files are not named for their class."""
    for part in parts:
        if part is not None:
            wnids = wnids_of_labels(part[2], part[3])
            if wnids and all(label in wnids for other in parts if other is not None for label in other[2]):
                return wnids
    pairs = [pair for part in parts if part is not None for pair in zip(part[2], part[3], strict=True)]
    named = [(label, path) for label, path in pairs if re.search(r"n\d{8}", path)]
    wnids = wnids_of_labels([label for label, _ in named], [path for _, path in named])
    return wnids if set(wnids) >= {label for label, _ in pairs} else {}


def _read_labels(tree: Tree) -> tuple[Tree, list[int], list[str], list[str]]:
    """Images, labels, and each image's original file name where .json tells it (its key otherwise)."""
    images, labels, files = [], [], []
    for i, path in enumerate(tree.paths):
        if not is_image_name(path):
            continue
        folder, slash, name = path.rpartition("/")
        # WebDataset's rule: the key ends at the first dot of the file's name.
        base = folder + slash + name.partition(".")[0]
        record = _json(tree, f"{base}.json")
        label = tree.text(f"{base}.cls")
        if label is None and "label" not in record:
            raise UserError(f"{tree.name(i)} has neither a .cls nor a .json with a label beside it.")
        label = str(record["label"] if label is None else label).strip()
        if not label.isdecimal():
            raise UserError(f"The label of {tree.name(i)} is {label[:40]!r}; a whole number was expected.")
        images.append(i)
        labels.append(str(int(label)))
        files.append(str(record.get("filename") or name))
    return tree, images, labels, files


def _json(tree: Tree, path: str) -> dict[str, object]:
    i = tree.find(path)
    if i is None:
        return {}
    try:
        record = json.loads(tree.read(i))
    except (ValueError, UnreadableImage):
        return {}
    return record if isinstance(record, dict) else {}

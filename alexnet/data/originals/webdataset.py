"""WebDataset shards of labelled images, as in timm/imagenet-1k-wds: KEY.jpg beside KEY.cls or KEY.json in tar files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet.data.decode import UnreadableImage
from alexnet.data.folders import is_image_name, sort_classes
from alexnet.data.originals.archives import first_names
from alexnet.data.originals.devkit import read_names
from alexnet.data.originals.imagenet import open_tree_of_notes
from alexnet.data.originals.listing import Original, OriginalSplit, class_names, tree_split, wnids_of_labels
from alexnet.data.originals.trees import Tree, archive_tree
from alexnet.errors import UserError

_SHARD = re.compile(r"(.*?)[-_.]?(\d{2,})\.tar$")
_VAL = re.compile(r"(?:^|[-_./])(?:val|valid|validation)(?:[-_./]|$)", re.IGNORECASE)
_TEST = re.compile(r"(?:^|[-_./])test(?:[-_./]|$)", re.IGNORECASE)


def find_shards(folder: Path) -> list[Path]:
    """Tar files of the folder, and of its folders, that are numbered as shards are and have labels beside images."""
    shards = sorted(
        file
        for pattern in ("*.tar", "*/*.tar")
        for file in folder.glob(pattern)
        if _SHARD.match(file.name) and not re.match(r"n\d{8}\.tar$", file.name)
    )
    return shards if any(_has_labels(shard) for shard in shards[:3]) else []


def _has_labels(shard: Path) -> bool:
    names = first_names(shard, 20)
    images = {name.rpartition(".")[0] for name in names if is_image_name(name)}
    return any(name.rpartition(".")[0] in images for name in names if name.endswith((".cls", ".json")))


def open_webdataset(
    shards: Sequence[Path], folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> Original:
    """The data set of some shards; val or validation in a shard's name marks the validation split, else test does.

    Labels are the whole numbers of .cls, or `label` of .json; where file names hold wnids, the classes are those.
    on_progress(MB, of all) counts each split twice: its files, then its labels.
    """
    sides: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for shard in shards:
        name = shard.relative_to(folder).as_posix()
        sides["val" if _VAL.search(name) else "test" if _TEST.search(name) else "train"].append(shard)
    notes = []
    if sides["val"] and sides["test"]:
        notes.append("The test shards are not used; the validation shards are.")
    parts: list[tuple[Tree, list[int], list[str], list[str]] | None] = []
    for side in (sides["train"], sides["val"] or sides["test"]):
        if not side:
            parts.append(None)
            continue
        tree = archive_tree(side, on_progress, prefix=lambda shard: f"{shard.relative_to(folder).as_posix()}/")
        parts.append(_read_labels(tree, sum(shard.stat().st_size for shard in side) // 10**6, on_progress))
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
        notes=[*notes, *([note] if note else [])],
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


def _read_labels(
    tree: Tree, num_mb: int, on_progress: Callable[[int, int], None] | None
) -> tuple[Tree, list[int], list[str], list[str]]:
    """Images, labels, and each image's original file name where .json tells it (its key otherwise)."""
    images, labels, files = [], [], []
    for i, path in enumerate(tree.paths):
        if not is_image_name(path):
            continue
        if on_progress is not None:
            on_progress(num_mb * i // len(tree), max(1, num_mb))
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

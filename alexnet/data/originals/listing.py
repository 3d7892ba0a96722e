"""What a published data set is once it is recognised: labelled images that can be read as they are."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alexnet.data.folders import sort_classes
from alexnet.data.originals.trees import Tree
from alexnet.errors import UserError

MAX_KEY_BYTES = 80
_WNID = re.compile(r"n\d{8}")


@dataclass(eq=False)
class OriginalSplit:
    """The images of a split.

    paths: each image's path within the split, of which its key is made. name(i): where a person finds it. read(i): the
    file's content, or (H, W, 3) uint8 pixels; raises UnreadableImage; safe in threads. num_bytes(): of all images
    together, 0 where that is not known. keys: those that the images have already, None where make_keys gives them.
    """

    labels: np.ndarray
    paths: Sequence[str]
    name: Callable[[int], str]
    read: Callable[[int], bytes | np.ndarray]
    num_bytes: Callable[[], int] = lambda: 0
    keys: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> OriginalSplit:
        """Only the images at `chosen`, in that order."""
        at = chosen.tolist()
        return OriginalSplit(
            self.labels[chosen],
            [str(self.paths[i]) for i in at],
            lambda i: self.name(at[i]),
            lambda i: self.read(at[i]),
            lambda: self.num_bytes() * len(at) // max(1, len(self)),
            None if self.keys is None else [str(self.keys[i]) for i in at],
        )


@dataclass(eq=False)
class Original:
    """A recognised data set. official: it has no validation split by mistake, so none is made without being asked."""

    name: str
    kind: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    train: OriginalSplit | None
    val: OriginalSplit | None
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    image_size: int | None = None
    """The side that all its images have, where they are small; they are not enlarged then."""
    needs_val: str | None = None
    """Why a validation split must not be made up, in a sentence with the remedy."""


def tree_split(tree: Tree, images: Sequence[int], labels: Sequence[int]) -> OriginalSplit:
    """The split of the files `images` of a tree."""
    return OriginalSplit(
        np.array(labels, np.int64),
        [tree.paths[i] for i in images],
        lambda i: tree.name(images[i]),
        lambda i: tree.read(images[i]),
        lambda: sum(tree.size(i) for i in images),
    )


Labelled = tuple[Tree, list[int], list[str]]
"""Images of a tree, and the class of each."""


def build_original(
    name: str,
    kind: str,
    train: Labelled | None,
    val: Labelled | None,
    *,
    names: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    needs_val: str | None = None,
) -> Original:
    """Put a data set together from labelled files: the classes are those that have images, in sorted order."""
    parts = [part for part in (train, val) if part is not None and part[1]]
    if not parts:
        raise UserError(f"{name} has no images.")
    present = {part_class for part in parts for part_class in set(part[2])}
    classes, note = sort_classes(sorted(present))
    notes = [*notes, *([note] if note else [])]
    label_of = {class_id: label for label, class_id in enumerate(classes)}
    if train is not None and val is not None and val[1]:
        notes += _compare(set(train[2]), set(val[2]))
    names = names or {}
    splits = [
        tree_split(part[0], part[1], [label_of[class_id] for class_id in part[2]]) if part and part[1] else None
        for part in (train, val)
    ]
    trees = list({id(part[0]): part[0] for part in parts}.values())
    return Original(
        name,
        kind,
        tuple(classes),
        tuple(class_names(classes, names)),
        splits[0],
        splits[1],
        notes=notes,
        damage=[sentence for tree in trees for sentence in tree.damage],
        refused=list(dict.fromkeys(item for tree in trees for item in tree.refused)),
        needs_val=needs_val,
    )


def _compare(train: set[str], val: set[str]) -> list[str]:
    unknown, missing = sorted(val - train), sorted(train - val)
    if unknown and not all(_WNID.fullmatch(class_id) for class_id in unknown):
        raise UserError(
            f"There are validation images of {some(unknown)}, but no training images. Add some, name the folders "
            "alike, or take those images out."
        )
    notes = [f"No training images of {some(unknown)}; their validation images are kept."] if unknown else []
    if missing:
        notes.append(f"No validation images of {some(missing)}: the errors say nothing about it.")
    return notes


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first few names, and how many more."""
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"


def class_names(classes: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """What a person calls each class: the first of its names where that is no other's, or else all of them."""
    full = [names.get(class_id, class_id).strip() or class_id for class_id in classes]
    first = [name.split(",")[0].strip() or name for name in full]
    counts = Counter(first)
    return [short if counts[short] == 1 else long for short, long in zip(first, full, strict=True)]


def wnids_of_labels(labels: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """The wnid that each whole-number label stands for, where the images' paths say so throughout; else nothing.

    ImageNet's copies number the classes, but their files are still named for the wnids.
    """
    found: dict[str, set[str]] = {}
    for label, path in zip(labels, paths, strict=True):
        found.setdefault(label, set()).update(_WNID.findall(path))
    if all(len(wnids) == 1 for wnids in found.values()) and len({*map(tuple, found.values())}) == len(found):
        return {label: next(iter(wnids)) for label, wnids in found.items()}
    return {}


def make_keys(split: OriginalSplit, classes: Sequence[str]) -> list[str]:
    """A key for each image, unique in the split: its file's name, with its class or a hash where others have that too.

    The same image has the same key in whatever layout it comes. Keys have no dot (WebDataset parts the name at the
    first one) and at most 80 bytes of UTF-8, so that they fit a plain tar header.
    """
    keys = [_plain(_stem(path)) for path in split.paths]
    counts = Counter(keys)
    if len(counts) < len(keys):
        labels = split.labels.tolist()
        keys = [key if counts[key] == 1 else _plain(f"{classes[labels[i]]}_{key}") for i, key in enumerate(keys)]
        counts = Counter(keys)
    if len(counts) < len(keys):
        seen: Counter[str] = Counter()
        for i, key in enumerate(keys):
            if counts[key] > 1:
                seen[split.paths[i]] += 1
                unique = f"{split.paths[i]}\0{seen[split.paths[i]]}".encode("utf-8", "surrogateescape")
                keys[i] = f"{key}_{hashlib.sha256(unique).hexdigest()[:12]}"
    return keys


def shuffled(keys: Sequence[str]) -> np.ndarray:
    """An order of the images that follows from their keys alone, and from nothing about their classes.

    A shard is then a random sample of the set, as those need who stream it.
    """
    ranks = [hashlib.sha256(b"order:" + key.encode()).digest()[:8] for key in keys]
    return np.array(sorted(range(len(keys)), key=lambda i: (ranks[i], keys[i])), np.int64)


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _plain(stem: str) -> str:
    key = "".join(letter if letter.isprintable() and letter not in "./\\ " else "_" for letter in stem) or "_"
    encoded = key.encode("utf-8", "replace")
    if len(encoded) <= MAX_KEY_BYTES - 13:
        return encoded.decode()
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return encoded[: MAX_KEY_BYTES - 30].decode("utf-8", "ignore") + "_" + digest

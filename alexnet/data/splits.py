"""What a data source is: labelled images in one or two splits, and the names of their classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet.errors import UserError
from alexnet.runtime.randomness import random_stream
from alexnet.runtime.text import valid_text

if TYPE_CHECKING:
    from alexnet.data.statistics import Statistics


@dataclass(frozen=True, eq=False)
class Storage:
    """How the images of a split are kept, as far as the order and the speed of reading depend on it.

    has_pixels: they need no decoding. is_remote: they come over the network. shards: (N,) int32, never falling, which
    shard each image lies in, where there are shards; checksums: (N,) uint32, then, of the images as they are stored.
    expect: called with the shards that are needed next, the most urgent first.
    """

    has_pixels: bool = False
    is_remote: bool = False
    shards: np.ndarray | None = None
    checksums: np.ndarray | None = None
    expect: Callable[[Sequence[int]], None] | None = None

    def take(self, indices: np.ndarray) -> Storage:
        """That of the images at `indices`, which rise."""
        if self.shards is None:
            return self
        checksums = None if self.checksums is None else self.checksums[indices]
        return replace(self, shards=self.shards[indices], checksums=checksums)


@dataclass(frozen=True, eq=False)
class Split:
    """A list of labelled images that are read one at a time.

    labels: (N,) int64, positions in the source's classes. keys: N strings, unique in the split, that name an image to a
    person (a path relative to the source, or an index). read(i) returns image i as (H, W, 3) uint8 RGB and raises
    UnreadableImage; it may be called from several threads. array: the images themselves, (N, H, W, 3) uint8 and
    C-contiguous, where the source has them in memory anyway; read(i) is array[i] then. classes: the source's classes,
    for messages. is_checked: every image was decoded when the set was made, so that none needs to be tried beforehand.
    """

    name: str
    labels: np.ndarray
    keys: Sequence[str]
    read: Callable[[int], np.ndarray]
    array: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    is_checked: bool = False
    storage: Storage = Storage()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: its classes in label order, and its splits.

    classes are the identifiers (folder names, wnids, digits), class_names what a person calls them. train is None where
    there is only something to evaluate on. fingerprint is equal for two sources with the same classes, keys and labels;
    pixels do not enter it. notes are sentences that the person should see. load_statistics reads those of all training
    images where they come with the set; None where they have to be computed.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    train: Split | None
    val: Split
    fingerprint: str
    notes: tuple[str, ...] = ()
    load_statistics: Callable[[], Statistics] | None = None


def build_source(
    *,
    name: str,
    kind: str,
    classes: Sequence[str],
    class_names: Sequence[str],
    train: Split | None,
    val: Split,
    notes: Sequence[str] = (),
) -> Source:
    """Put a source together: checks that labels, keys and classes fit each other, and computes the fingerprint."""
    mark = fingerprint(classes, train, val)
    classes, class_names = class_texts(classes), tuple(map(valid_text, class_names))
    assert len(classes) == len(class_names)
    for split in (train, val):
        if split is not None:
            assert len(split.keys) == len(split.labels) and split.labels.dtype == np.int64
            assert len(split) == 0 or (split.labels.min() >= 0 and split.labels.max() < len(classes))
    return Source(
        name=name,
        kind=kind,
        classes=classes,
        class_names=class_names,
        train=None if train is None else replace(train, classes=classes),
        val=replace(val, classes=classes),
        fingerprint=mark,
        notes=tuple(notes),
    )


def class_texts(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of classes as valid text. Raises UserError if two of them are the same as text."""
    texts = tuple(map(valid_text, classes))
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise UserError(f"Two classes are called {twice}, with the bytes that are not UTF-8 written out. Rename one.")
    return texts


def fingerprint(classes: Sequence[str], *splits: Split | None) -> str:
    """Hash of the classes and of every split's name, keys and labels, in order: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    _update(digest, classes)
    for split in splits:
        if split is None:
            _update(digest, ["no split"])
            continue
        _update(digest, [split.name])
        _update(digest, split.keys)
        digest.update(np.ascontiguousarray(split.labels, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]


def take(split: Split, indices: np.ndarray) -> Split:
    """The split with only the images at `indices` (int64), in that order."""
    if split.array is not None:
        array = split.array[indices]
        return replace(
            split,
            labels=split.labels[indices],
            keys=[split.keys[i] for i in indices],
            read=array.__getitem__,
            array=array,
        )
    positions = indices.tolist()
    return replace(
        split,
        labels=split.labels[indices],
        keys=_Taken(split.keys, positions) if split.storage.shards is not None else [split.keys[i] for i in positions],
        read=lambda i: split.read(positions[i]),
        storage=split.storage.take(indices),
    )


class _Taken(Sequence[str]):
    """Some of the keys of a split in shards, each read when it is asked for."""

    def __init__(self, keys: Sequence[str], positions: list[int]) -> None:
        self._keys, self._positions = keys, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._positions[index]
        return [self._keys[i] for i in chosen] if isinstance(chosen, list) else self._keys[chosen]


def draw(split: Split, num_images: int, seed: int) -> Split:
    """`num_images` images of the split, chosen by `seed`, in the split's own order.

    The choice follows from the keys alone; of images in shards, whose keys would have to be read one by one, from their
    positions, which are the same for every copy of such a set.
    """
    if split.storage.shards is not None:
        positions = random_stream(seed, "draw").permutation(len(split))[:num_images]
        return take(split, np.sort(positions))
    ranks = [hashlib.sha256(f"{seed}:{key}".encode("utf-8", "backslashreplace")).digest() for key in split.keys]
    chosen = sorted(range(len(split)), key=ranks.__getitem__)[:num_images]
    return take(split, np.array(sorted(chosen), dtype=np.int64))


def _update(digest: hashlib._Hash, strings: Sequence[str]) -> None:
    """Hash a list of strings such that no two lists give the same bytes."""
    digest.update(f"{len(strings)}\n".encode())
    for string in strings:
        encoded = string.encode("utf-8", "backslashreplace")
        digest.update(b"%d:%s" % (len(encoded), encoded))

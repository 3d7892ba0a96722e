"""Copies of one image in both splits or in two classes, by the content of files."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet.data.decode import UnreadableImage
from alexnet.data.holdout import hash_files
from alexnet.data.splits import Source, Split
from alexnet.data.threads import map_blocks
from alexnet.doctor.findings import MAX_EVIDENCE, Finding, capped, finding
from alexnet.doctor.images import file_of, sample
from alexnet.runtime.device import default_num_workers

MAX_HASHED = 20_000
_MAX_ARRAY_BYTES = 2**30
_BLOCK_SIZE = 16
_NEARLY_ALL = 0.9
_MANY = 0.01


class _Image(NamedTuple):
    part: Split
    position: int
    """In the split."""
    content: bytes

    @property
    def split(self) -> str:
        """Name of its split."""
        return self.part.name

    @property
    def label(self) -> int:
        """Position of its class."""
        return int(self.part.labels[self.position])

    @property
    def key(self) -> str:
        """Its name; in shards it is read when it is asked for."""
        return self.part.keys[self.position]


def inspect_duplicates(spec: str, path: Path | None, source: Source, *, full: bool) -> list[Finding]:
    """Look for exact copies.

    Only what may be one is read (files of equal length, images of a prepared set with equal checksums), and about
    MAX_HASHED of those unless `full`.
    """
    splits = [split for split in (source.train, source.val) if split is not None]
    images, complete = _hashed(path, splits, full=full)
    groups: dict[bytes, list[_Image]] = defaultdict(list)
    for image in images:
        groups[image.content].append(image)
    copies = [group for group in groups.values() if len(group) > 1]
    if not copies:
        return []
    note = "" if complete else f" {len(images)} of those that may be copies were read; --full reads all."
    findings = _across_splits(spec, copies, len(source.val), note)
    across = [group for group in copies if len({image.label for image in group}) > 1]
    if across:
        rows = [
            " = ".join(f"{image.key} ({source.classes[image.label]})" for image in group[:2])
            for group in across[:MAX_EVIDENCE]
        ]
        what = f"{len(across)} images lie in more than one class.{note}"
        findings.append(finding("duplicates-across-classes", spec, what, capped(rows, len(across))))
    within = [
        own
        for group in copies
        if len(own := [image for image in group if image.split == "train"]) > 1 and len({i.label for i in own}) == 1
    ]
    if within:
        extra = sum(len(group) - 1 for group in within)
        rows = [" = ".join(image.key for image in group[:2]) for group in within[:MAX_EVIDENCE]]
        what = f"{extra} training images are copies of another one of their class.{note}"
        findings.append(finding("duplicates-in-training", spec, what, capped(rows, len(within))))
    return findings


def _across_splits(spec: str, copies: list[list[_Image]], num_val: int, note: str) -> list[Finding]:
    pairs = []
    for group in copies:
        train = [image for image in group if image.split == "train"]
        if train:
            pairs += [(image, train[0]) for image in group if image.split == "val"]
    if not pairs:
        return []
    rows = capped([f"{val.key} = {train.key}" for val, train in pairs[:MAX_EVIDENCE]], len(pairs))
    share = len(pairs) / num_val
    what = f"{len(pairs)} of {num_val} validation images ({share:.1%}) are training images too, byte for byte.{note}"
    if share >= _NEARLY_ALL:
        return [finding("validation-in-training", spec, what, rows)]
    severity = None if share >= _MANY else "warning"
    return [finding("duplicates-across-splits", spec, what, rows, severity=severity)]


def _hashed(path: Path | None, splits: list[Split], *, full: bool) -> tuple[list[_Image], bool]:
    """The images that may have a copy, with their hashes, and whether none was left out for the time it takes."""
    arrays = [split for split in splits if split.array is not None]
    if arrays:
        hashed = [
            _Image(split, i, hashlib.sha256(split.array[i]).digest())
            for split in arrays
            if split.array is not None and (full or split.array.nbytes <= _MAX_ARRAY_BYTES)
            for i in range(len(split))
        ]
        return hashed, len(hashed) == sum(map(len, arrays))
    if any(split.storage.checksums is not None for split in splits):
        groups = _of_equal_checksum(splits)
        chosen = _limited(groups, None if full else MAX_HASHED)
        return _hash_pixels(chosen), len(chosen) == sum(map(len, groups))
    by_size: dict[int, list[tuple[Split, int, Path]]] = defaultdict(list)
    for split in splits:
        for i, key in enumerate(split.keys):
            file = file_of(path, key)
            if file is not None and file.is_file():
                by_size[os.stat(file).st_size].append((split, i, file))
    groups = [group for _, group in sorted(by_size.items()) if len(group) > 1]
    chosen = _limited(groups, None if full else MAX_HASHED)
    digests = hash_files([file for _, _, file in chosen], default_num_workers(images_in_memory=False))
    images = [_Image(split, i, digest) for (split, i, _), digest in zip(chosen, digests, strict=True)]
    return images, len(chosen) == sum(map(len, groups))


def _of_equal_checksum(splits: list[Split]) -> list[list[tuple[Split, int]]]:
    """Images in shards whose checksums in the index are equal; no shard is read."""
    known = [(split, checksums) for split in splits if (checksums := split.storage.checksums) is not None]
    values, counts = np.unique(np.concatenate([checksums for _, checksums in known]), return_counts=True)
    groups: dict[int, list[tuple[Split, int]]] = defaultdict(list)
    for split, checksums in known:
        for i in np.flatnonzero(np.isin(checksums, values[counts > 1])).tolist():
            groups[int(checksums[i])].append((split, i))
    return list(groups.values())


def _hash_pixels(images: list[tuple[Split, int]]) -> list[_Image]:
    """Those that can be decoded, with the hash of their pixels."""

    def hash_block(block: range) -> list[_Image]:
        hashed = []
        for split, i in (images[position] for position in block):
            with suppress(UnreadableImage):
                hashed.append(_Image(split, i, hashlib.sha256(split.read(i).data).digest()))
        return hashed

    blocks = map_blocks(hash_block, len(images), _BLOCK_SIZE, default_num_workers(images_in_memory=False))
    return [image for _, hashed in blocks for image in hashed]


def _limited(groups: list[list], limit: int | None) -> list:
    """The members of whole groups (files of one length), evenly chosen, until there are about `limit`."""
    total = sum(map(len, groups))
    if limit is None or total <= limit:
        return [member for group in groups for member in group]
    keep: Callable[[int], bool] = set(sample(len(groups), max(1, len(groups) * limit // total))).__contains__
    return [member for i, group in enumerate(groups) if keep(i) for member in group][: 2 * limit]

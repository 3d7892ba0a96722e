"""Choosing validation images for a data set that has none, by the images' content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alexnet.data.threads import map_blocks

_BLOCK_SIZE = 64


def hash_files(paths: Sequence[Path], num_workers: int) -> list[bytes]:
    """SHA-256 of each file's content; a file that cannot be read gets a hash of its own."""

    def hash_block(block: range) -> list[bytes]:
        return [_hash_file(paths[i]) for i in block]

    return [digest for _, digests in map_blocks(hash_block, len(paths), _BLOCK_SIZE, num_workers) for digest in digests]


def _hash_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return hashlib.sha256(b"unreadable:" + str(path).encode("utf-8", "backslashreplace")).digest()


def hold_out(contents: Sequence[bytes], labels: np.ndarray, val_fraction: float, seed: int) -> np.ndarray:
    """Which images are for validation: (N,) bool, from N content hashes, N labels, a fraction in (0, 1) and a seed.

    Equal contents always fall on one side. Of each class's distinct contents, the rounded fraction is held out, at
    least one and never all of two or more; a single one is trained on. Who is held out depends on contents and the seed
    alone, so an image that is added, renamed or reordered moves few others. Contents that occur in several classes are
    trained on, unless a class has nothing else to hold out.
    """
    members: dict[int, set[bytes]] = defaultdict(set)
    owners: dict[bytes, set[int]] = defaultdict(set)
    for content, label in zip(contents, labels.tolist(), strict=True):
        members[label].add(content)
        owners[content].add(label)
    prefix = f"{seed}:".encode()
    rank = {content: hashlib.sha256(prefix + content).digest() for content in owners}
    held_out: set[bytes] = set()
    for label in sorted(members):
        num_distinct = len(members[label])
        quota = min(max(1, round(val_fraction * num_distinct)), num_distinct - 1)
        own = sorted((content for content in members[label] if len(owners[content]) == 1), key=rank.__getitem__)
        held_out.update(own[:quota])
    for label in sorted(members):
        if len(members[label]) >= 2 and not members[label] & held_out:
            for content in sorted(members[label], key=rank.__getitem__):
                if all(len(members[owner] - held_out) >= 2 for owner in owners[content]):
                    held_out.add(content)
                    break
    return np.array([content in held_out for content in contents], bool)

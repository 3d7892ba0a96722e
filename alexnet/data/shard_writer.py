"""Writing shards: each is made whole, with a record beside it of what it holds, or not at all."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet.data.shards import HEADER_BYTES, INDEX_TYPES, ShardIndex
from alexnet.runtime.files import write_atomically

_END = bytes(2 * HEADER_BYTES)


@dataclass(eq=False)
class Sample:
    """One image on its way into a shard."""

    key: str
    payload: bytes
    extension: str
    label: int


@dataclass(eq=False)
class ShardRecord:
    """What a shard holds: its part of the index, of the statistics, and the images that are not in it."""

    sha256: str
    num_bytes: int
    index: ShardIndex
    pixel_sums: np.ndarray | None = None
    product_sums: np.ndarray | None = None
    skipped: list[dict[str, str]] = field(default_factory=list)
    repaired: list[dict[str, str]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the record; a shard counts as finished when this is done."""
        arrays: dict[str, Any] = {name: getattr(self.index, name) for name in INDEX_TYPES}
        if self.pixel_sums is not None and self.product_sums is not None:
            arrays |= {"pixel_sums": self.pixel_sums.astype("<u8"), "product_sums": self.product_sums.astype("<i8")}
        facts = {
            "sha256": self.sha256,
            "num_bytes": self.num_bytes,
            "skipped": self.skipped,
            "repaired": self.repaired,
        }
        write_atomically(path, lambda file: np.savez(file, facts=np.array(json.dumps(facts)), **arrays))

    @classmethod
    def load(cls, path: Path) -> ShardRecord | None:
        """The record of a finished shard; None where there is none."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
            index = ShardIndex(**{name: arrays.pop(name) for name in INDEX_TYPES})
            return cls(**facts, index=index, **arrays)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None


def write_shard(path: Path, number: int, samples: Iterable[Sample], expected_bytes: int = 0) -> ShardRecord:
    """Write a shard under a temporary name, then rename it. Equal samples give equal bytes."""
    writer: _TarWriter | None = None

    def write(file: BinaryIO) -> None:
        nonlocal writer
        writer = _TarWriter(file)
        for sample in samples:
            writer.add(sample)
        writer.close()

    write_atomically(path, write, expected_bytes)
    assert writer is not None
    return writer.record(number)


class _TarWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._position = 0
        self._rows: list[tuple[int, int, int, int]] = []

    def add(self, sample: Sample) -> None:
        self._member(f"{sample.key}.{sample.extension}", sample.payload)
        start = self._position - _padded(len(sample.payload))
        self._rows.append((start, len(sample.payload), sample.label, zlib.crc32(sample.payload)))
        self._member(f"{sample.key}.cls", b"%d" % sample.label)

    def close(self) -> None:
        self._write(_END)

    def record(self, number: int) -> ShardRecord:
        columns = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
        offset, size, label, checksum = (np.array(column, np.int64) for column in columns)
        arrays = {
            "shard": np.full(len(self._rows), number),
            "offset": offset,
            "size": size,
            "label": label,
            "checksum": checksum,
        }
        index = ShardIndex(**{name: arrays[name].astype(kind) for name, kind in INDEX_TYPES.items()})
        return ShardRecord(self._digest.hexdigest(), self._position, index)

    def _member(self, name: str, content: bytes) -> None:
        # All that is not content is constant: no times, no owners.
        info = tarfile.TarInfo(name)
        info.size = len(content)
        header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
        self._write(header + content + bytes(_padded(len(content)) - len(content)))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._position += len(data)


def _padded(size: int) -> int:
    return (size + HEADER_BYTES - 1) // HEADER_BYTES * HEADER_BYTES

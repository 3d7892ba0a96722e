"""Prepared data sets: what `alexnet prepare` writes, read through mapped shards. The format is in docs/data.md."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from alexnet.data.decode import UnreadableImage, decode_image
from alexnet.data.encoding import decode_raw
from alexnet.data.shards import ShardFiles, ShardIndex, Shards
from alexnet.data.splits import Source, Split, Storage
from alexnet.data.statistics import Statistics
from alexnet.errors import UserError
from alexnet.runtime.files import read_json

DESCRIPTION = "dataset.json"
STATISTICS = "statistics.npz"
WORK = ".progress"
FORMAT, VERSION = "alexnet-prepared", 1
SPLITS = ("train", "val")


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared data set, or one in the making."""
    return (folder / DESCRIPTION).is_file() or (folder / WORK / "plan.json").is_file()


def open_prepared(folder: Path) -> Source:
    """The data set in a folder; images are read through the index, in the order of the samples.

    Raises UserError for a preparation that was not finished, and for files that are missing or damaged.
    """
    record = read_description(folder)
    splits: dict[str, Split | None] = {}
    for name in SPLITS:
        shards = open_shards(folder, record, name)
        splits[name] = None if shards is None else prepared_split(name, shards, record)
    return prepared_source(folder, record, splits)


def prepared_source(folder: Path, record: dict[str, Any], splits: Mapping[str, Split | None]) -> Source:
    """The source that dataset.json describes; statistics are read from the folder when they are asked for."""
    val = splits["val"]
    if val is None:
        raise UserError(f"{folder} has no validation images; prepare it again, with --val-fraction 0.1.")
    return Source(
        name=str(record["name"]),
        kind="prepared",
        classes=tuple(record["classes"]),
        class_names=tuple(record["class_names"]),
        train=splits["train"],
        val=val,
        fingerprint=_fingerprint(record),
        load_statistics=(lambda: load_statistics(folder)) if splits["train"] is not None else None,
    )


def read_description(folder: Path) -> dict[str, Any]:
    """dataset.json, checked to be one that this version can read. Raises UserError."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"{folder} is not finished: its preparation was stopped. Give the same `alexnet prepare` command again; "
            "it goes on where it stopped."
        )
    record = read_json(path, remedy="give the same `alexnet prepare` command again, or copy the folder again")
    if record.get("format") != FORMAT:
        raise UserError(f"{path} does not describe a prepared data set; give the folder that `alexnet prepare` wrote.")
    if record.get("version") != VERSION:
        raise UserError(
            f"{folder} was prepared in version {record.get('version')} of the format; this program reads version "
            f"{VERSION}. Prepare it again, or update alexnet."
        )
    missing = {"name", "classes", "class_names", "image_size", "encoding", "splits"} - record.keys()
    if missing:
        raise UserError(f"{path} is damaged ({', '.join(sorted(missing))} missing). Prepare the data set again.")
    return record


def open_shards(folder: Path, record: dict[str, Any], split: str) -> ShardFiles | None:
    """The shards of one split; None where the data set has no such split."""
    part = record["splits"].get(split)
    if part is None:
        return None
    return ShardFiles([folder / shard["file"] for shard in part["shards"]], open_index(folder, record, split))


def open_index(folder: Path, record: dict[str, Any], split: str) -> ShardIndex:
    """The index of a split that the data set has. Raises UserError where it does not fit the description."""
    part = record["splits"][split]
    index = ShardIndex.load(folder / part["index"]["file"])
    labels = index.label
    if len(index) != part["num_images"] or (
        len(labels) and not 0 <= labels.min() <= labels.max() < len(record["classes"])
    ):
        raise UserError(f"{folder / part['index']['file']} does not fit {folder / DESCRIPTION}. Copy the set again.")
    return index


def load_statistics(folder: Path) -> Statistics:
    """The mean image and the colours' covariance of all training images. Raises UserError for a damaged file."""
    path = folder / STATISTICS
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Statistics(**{**arrays, "num_images": int(arrays["num_images"])})
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}). Copy the data set again, or prepare it again.") from None


def verify_prepared(folder: Path, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Read everything and compare it with what was written: the files that differ, none for a sound data set.

    on_progress(MB read, of).
    """
    record = read_description(folder)
    parts = [part for name in SPLITS if (part := record["splits"].get(name)) is not None]
    files = [item for part in parts for item in [*part["shards"], part["index"]]]
    if "sha256" in (record["statistics"] or ()):  # older sets have no checksum of it
        files.append(record["statistics"])
    total = sum(shard["bytes"] for part in parts for shard in part["shards"])
    wrong, done = [], 0
    for item in files:
        digest = hashlib.sha256()
        try:
            with (folder / item["file"]).open("rb") as file:
                while chunk := file.read(2**22):
                    digest.update(chunk)
                    done += len(chunk)
                    if on_progress is not None:
                        on_progress(min(done, total) // 10**6, max(1, total // 10**6))
        except OSError:
            wrong.append(item["file"])
            continue
        if digest.hexdigest() != item["sha256"]:
            wrong.append(item["file"])
    return wrong


class _Keys(Sequence[str]):
    """The keys of a split, each read from its shard when it is asked for."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._shards.key(i) for i in range(len(self))[index]]
        return self._shards.key(range(len(self))[index])


def prepared_split(
    name: str,
    shards: Shards,
    record: dict[str, Any],
    *,
    is_remote: bool = False,
    expect: Callable[[Sequence[int]], None] | None = None,
) -> Split:
    """A split of a prepared data set, read from its shards; is_remote and expect: as of Storage."""
    is_raw = record["encoding"] == "raw"

    def read(i: int) -> np.ndarray:
        payload = shards.payload(i)
        if is_raw:
            return decode_raw(payload)
        try:
            return decode_image(bytes(payload))
        except UnreadableImage as error:
            raise UnreadableImage(f"{error} ({shards.files[int(shards.index.shard[i])]})") from None

    return Split(
        name,
        shards.index.label.astype(np.int64),
        _Keys(shards),
        read,
        classes=tuple(record["classes"]),
        is_checked=True,
        storage=Storage(
            has_pixels=is_raw,
            is_remote=is_remote,
            shards=shards.index.shard,
            checksums=shards.index.checksum,
            expect=expect,
        ),
    )


def _fingerprint(record: dict[str, Any]) -> str:
    """Of classes and contents: the checksums of the shards stand for keys, labels and pixels."""
    digest = hashlib.sha256("\n".join(record["classes"]).encode("utf-8", "backslashreplace"))
    for name in SPLITS:
        part = record["splits"].get(name)
        digest.update(f"\n{name} {part['num_images'] if part else 0}\n".encode())
        for shard in part["shards"] if part else ():
            digest.update(str(shard["sha256"]).encode())
    return digest.hexdigest()[:32]

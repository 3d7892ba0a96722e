"""Random access to the images of a prepared split: an index in memory, tar shards mapped when they are first touched.

A shard is a plain tar file. Before the payload of each image stands its 512-byte header, which holds the image's key;
the index says where the payloads are, so no tar is ever searched.
"""

from __future__ import annotations

import mmap
import sys
import threading
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from alexnet.errors import RunError, UserError

HEADER_BYTES = 512
INDEX_TYPES = {"shard": "<i4", "offset": "<i8", "size": "<i8", "label": "<i4", "checksum": "<u4"}


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the N images of a split are: arrays of length N, in the order of the samples; 28 bytes an image."""

    shard: np.ndarray
    """int32: number of the shard."""
    offset: np.ndarray
    """int64: of the payload in the shard's file."""
    size: np.ndarray
    """int64: bytes of the payload."""
    label: np.ndarray
    """int32: position in the data set's classes."""
    checksum: np.ndarray
    """uint32: zlib.crc32 of the payload."""

    def __len__(self) -> int:
        return len(self.label)

    def save(self, file: BinaryIO) -> None:
        """Write the arrays as an uncompressed .npz; equal indices give equal bytes."""
        # Of a fixed byte order, and numpy stamps every member of the archive with the same date.
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(getattr(self, name), kind) for name, kind in INDEX_TYPES.items()
        }
        np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> ShardIndex:
        """Read an index. Raises UserError for a file that is none."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in INDEX_TYPES}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no index of a prepared data set ({error}). {_REMEDY}") from None
        lengths = {array.shape for array in arrays.values()}
        if len(lengths) != 1 or any(array.dtype != INDEX_TYPES[name] for name, array in arrays.items()):
            raise UserError(f"{path} is no index of a prepared data set (its arrays do not fit each other). {_REMEDY}")
        return cls(**arrays)


class Shards(Protocol):
    """The images of one split in its shards, wherever those are; everything may be used from several threads."""

    @property
    def files(self) -> Sequence[Any]:
        """What to call each shard."""
        ...

    @property
    def index(self) -> ShardIndex:
        """Where the images are."""
        ...

    def __len__(self) -> int: ...

    def payload(self, i: int) -> memoryview | bytes:
        """The bytes of image i as they are in the shard."""
        ...

    def key(self, i: int) -> str:
        """The key of image i, from its header in the shard."""
        ...


def name_in_header(header: bytes) -> str:
    """The name of a member from its tar header."""
    # The prefix is where ustar puts the front of a long name; the writer's keys are short enough to do without.
    name, prefix = (field.split(b"\0", 1)[0] for field in (header[:100], header[345:500]))
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "backslashreplace")


def check_index(index: ShardIndex, sizes: Sequence[int], folder: str, names: Sequence[str]) -> None:
    """Raise UserError where the index does not fit shards of these sizes; folder and names are for the messages."""
    if len(index) == 0:
        return
    if index.shard.min() < 0 or index.shard.max() >= len(sizes) or index.offset.min() < HEADER_BYTES:
        raise UserError(f"The index of {folder} is damaged. {_REMEDY}")
    beyond = np.flatnonzero((index.size < 0) | (index.offset + index.size > np.array(sizes)[index.shard]))
    if len(beyond):
        shard = int(index.shard[beyond[0]])
        raise UserError(f"{folder}/{names[shard]} is cut off: {len(beyond)} of its images are missing. {_REMEDY}")


class ShardFiles:
    """The shards of one split with their index; everything here may be used from several threads.

    files: the shards' paths, by number. Raises UserError for shards that are missing or shorter than the index says.
    """

    def __init__(self, files: Sequence[Path], index: ShardIndex) -> None:
        self.files = list(files)
        self.index = index
        self._check()
        self._maps: list[mmap.mmap | None] = [None] * len(self.files)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.index)

    def payload(self, i: int) -> memoryview:
        """The bytes of image i as they are in the shard: not copied, and not yet read from the disk."""
        start = int(self.index.offset[i])
        return memoryview(self._map(int(self.index.shard[i])))[start : start + int(self.index.size[i])]

    def label(self, i: int) -> int:
        """The class of image i."""
        return int(self.index.label[i])

    def key(self, i: int) -> str:
        """The key of image i, from its header in the shard."""
        return self._name(i).rpartition(".")[0]

    def extension(self, i: int) -> str:
        """What the payload of image i is: jpg, npy, png, ..."""
        return self._name(i).rpartition(".")[2]

    def verify(self, i: int) -> bool:
        """Whether the payload of image i is what was written."""
        return zlib.crc32(self.payload(i)) == int(self.index.checksum[i])

    def _name(self, i: int) -> str:
        stop = int(self.index.offset[i])
        return name_in_header(self._map(int(self.index.shard[i]))[stop - HEADER_BYTES : stop])

    def _map(self, shard: int) -> mmap.mmap:
        mapped = self._maps[shard]
        if mapped is None:
            with self._lock:
                mapped = self._maps[shard]
                if mapped is None:
                    mapped = self._maps[shard] = map_file(self.files[shard])
        return mapped

    def _check(self) -> None:
        index = self.index
        if len(index) == 0:
            return
        sizes = []
        for path in self.files:
            try:
                sizes.append(path.stat().st_size)
            except OSError as error:
                raise UserError(f"The shard {path} cannot be used: {error.strerror}. {_REMEDY}") from None
        check_index(index, sizes, str(self.files[0].parent), [file.name for file in self.files])


_REMEDY = "Copy the data set again, or prepare it again."


def map_file(path: Path) -> mmap.mmap:
    """A shard as bytes that are read when they are looked at. Raises RunError."""
    # A map keeps a file descriptor of its own, except where Python can do without (3.13); thousands of shards would
    # use up what a process is usually allowed.
    options = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    try:
        with path.open("rb") as file:
            try:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **options)
            except OSError:
                _allow_more_files()
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **options)
    except (OSError, ValueError) as error:
        raise RunError(f"The shard {path} can no longer be read: {error}.") from None


def _allow_more_files() -> None:
    """Raise the number of files this process may have open to what the system lets it have."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

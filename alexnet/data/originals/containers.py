"""Bytes at any offset of a file, also of a gzip file, for readers in several threads."""

from __future__ import annotations

import bisect
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from alexnet.errors import RunError, UserError

_CHUNK = 2**16
_MAX_GZIP_BYTES = 12 * 2**30
_MAX_SNAPSHOTS = 4000
_MIN_SPACING = 2**20


class Container(Protocol):
    """A sequence of bytes that holds files: what an archive is to its members."""

    path: Path
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end. Safe in threads."""
        ...


class PlainFile:
    """The bytes of a file on the disk.

    The file is opened for each read: 20,000 archives may be in use at a time, more than a process may have open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None

    def read(self, offset: int, size: int) -> bytes:
        """See Container."""
        try:
            with self.path.open("rb", buffering=0) as file:
                return _pread(file.fileno(), offset, size)
        except OSError as error:
            raise RunError(f"{self.path} can no longer be read: {error.strerror}.") from None


class GzipFile:
    """The uncompressed bytes of a gzip file, without unpacking it to the disk.

    Gzip can only be read from its start. One pass keeps a copy of the decompressor's state (about 40 KB) every megabyte
    or so; a read then begins at the last one before it, or goes on where the same thread's last read ended. Raises
    UserError for a file that is cut off or damaged.
    """

    def __init__(self, path: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
        self.path = path
        self._file = PlainFile(path)
        if self._file.size > _MAX_GZIP_BYTES:
            raise UserError(
                f"{path} is compressed, and too large to be read from the middle. Unpack the compression alone, "
                f"the tar inside stays as it is: gunzip --keep {path.name}"
            )
        self._spacing = max(_MIN_SPACING, self._file.size // _MAX_SNAPSHOTS)
        self._starts: list[int] = []
        self._states: list[_GzipReader] = []
        self._threads = threading.local()
        self.size = self._scan(on_progress)

    def read(self, offset: int, size: int) -> bytes:
        """See Container."""
        reader: _GzipReader | None = getattr(self._threads, "reader", None)
        best = bisect.bisect_right(self._starts, offset) - 1
        if reader is None or not self._starts[best] <= reader.position <= offset:
            reader = self._threads.reader = self._states[best].copy()
        parts, wanted = [], size
        while wanted > 0:
            data = reader.next(skip_to=offset, at_most=wanted)
            if not data:
                break
            parts.append(data)
            wanted -= len(data)
            offset += len(data)
        return b"".join(parts)

    def _scan(self, on_progress: Callable[[int, int], None] | None) -> int:
        reader = _GzipReader(self._file)
        limit = 100 * self._file.size + 2**30
        try:
            while True:
                if not self._starts or reader.position - self._starts[-1] >= self._spacing:
                    self._starts.append(reader.position)
                    self._states.append(reader.copy())
                    if on_progress is not None:
                        on_progress(reader.at, self._file.size)
                if not reader.advance():
                    return reader.position
                if reader.position > limit:
                    raise UserError(f"{self.path} unpacks to more than 100 times its size; no images do. Not read.")
        except zlib.error as error:
            raise UserError(f"{self.path} is damaged ({error}). Download it again.") from None


class _GzipReader:
    """A decompressor at a place of a gzip file."""

    def __init__(self, file: PlainFile) -> None:
        self._file = file
        self.at = 0
        """In the compressed file."""
        self._inflate = zlib.decompressobj(31)
        self._ready = b""  # uncompressed, from `position` on
        self.position = 0

    def copy(self) -> _GzipReader:
        other = _GzipReader(self._file)
        other.at, other._ready, other.position = self.at, self._ready, self.position
        other._inflate = self._inflate.copy()
        return other

    def advance(self) -> bool:
        """Uncompress the next piece and pass over it; False at the end."""
        if not self._ready and not self._fill():
            return False
        self.position += len(self._ready)
        self._ready = b""
        return True

    def next(self, *, skip_to: int, at_most: int) -> bytes:
        """The next bytes at or after `skip_to`, b"" at the end."""
        while not self._ready or self.position + len(self._ready) <= skip_to:
            self.position += len(self._ready)
            self._ready = b""
            if not self._fill():
                return b""
        start = skip_to - self.position
        data = self._ready[start : start + at_most]
        self._ready = self._ready[start + len(data) :]
        self.position = skip_to + len(data)
        return data

    def _fill(self) -> bool:
        while not self._ready:
            if self._inflate.eof:
                rest = self._inflate.unused_data
                self.at -= len(rest)
                # Another gzip member may follow; zeros are padding.
                if not self._file.read(self.at, 512).strip(b"\0"):
                    return False
                self._inflate = zlib.decompressobj(31)
            chunk = self._file.read(self.at, _CHUNK)
            if not chunk:
                raise UserError(f"{self._file.path} is cut off: its compressed data do not end. Download it again.")
            self.at += len(chunk)
            self._ready = self._inflate.decompress(chunk)
        return True


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(descriptor, min(size, 2**30), offset)
        if not part:
            break
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)

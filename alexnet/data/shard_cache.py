"""A folder of files from the network, with a limit to its size: what was not used for longest makes room.

Several processes may use one folder. A file is written under another name, checked, and then renamed, so that whatever
is there under its own name is whole; who is killed in between leaves a part that the next download of it overwrites.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_TOUCH_SECONDS = 60.0
_PART = ".part"
_LOCK = ".lock"
_LOCKS_OF_THREADS: dict[Path, threading.Lock] = {}
"""Where files cannot be locked."""


class DamagedDownload(Exception):
    """What came is not what was asked for; str() says how they differ."""


class ShardCache:
    """Files below `folder`, of at most `limit_bytes` together; everything may be called from several threads."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.kept: set[str] = set()
        """Names that never make room: what is mapped would take its space all the same, what comes next is awaited."""
        self._touched: dict[str, float] = {}

    def get(self, name: str, size: int) -> Path | None:
        """The file, if it is there; marks it as used."""
        path = self.folder / name
        try:
            if path.stat().st_size != size:
                return None
            now = time.time()
            if now - self._touched.get(name, 0.0) > _TOUCH_SECONDS:
                os.utime(path)
                self._touched[name] = now
        except OSError:
            return None
        return path

    def fetch(
        self,
        name: str,
        size: int,
        sha256: str,
        chunks: Callable[[], Iterable[bytes]],
        *,
        wait: bool = False,
    ) -> Path | None:
        """Bring a file here, unless it is there.

        chunks: reads it. wait: for whoever is just fetching it. Returns None when there is no room, or, without wait,
        when somebody else is fetching it. Raises DamagedDownload, and whatever `chunks` raises; nothing is left then.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(path.name + _LOCK), wait=wait) as is_ours:
            if not is_ours:
                return None
            if (there := self.get(name, size)) is not None:
                return there
            part = path.with_name(path.name + _PART)
            if not self._reserve(part, size):
                return None
            try:
                _write(part, chunks(), size, sha256)
                with self._room_lock():  # whoever counts sees it under one of its names
                    part.replace(path)
            except OSError:
                if (there := self.get(name, size)) is not None:
                    return there  # on Windows: another process was first, and has it mapped
                if shutil.disk_usage(path.parent).free < size:
                    return None
                raise
            finally:
                part.unlink(missing_ok=True)
        return path

    def _reserve(self, part: Path, size: int) -> bool:
        """Make room, and take it before anybody else does."""
        with self._room_lock():
            part.unlink(missing_ok=True)
            if not self._make_room(size):
                return False
            with part.open("wb") as file:
                file.truncate(size)  # takes no space yet, but counts
            return True

    def _room_lock(self) -> contextlib.AbstractContextManager[bool]:
        return _lock(self.folder / _LOCK, wait=True)

    def _make_room(self, size: int) -> bool:
        """Delete what was not used for longest until `size` bytes more fit; False where they cannot."""
        if size > self.limit_bytes:
            return False
        files = sorted(self._files(), key=lambda entry: entry[0])
        total = sum(entry[1] for entry in files)
        for _, length, path in files:
            if total + size <= self.limit_bytes:
                break
            if path.relative_to(self.folder).as_posix() not in self.kept and not path.name.endswith(_PART):
                # Another process that has it mapped keeps it until it is done; Windows does not let it go before.
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= length
        return total + size <= self.limit_bytes

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was last used, its size, and itself; parts count, and those that nobody writes go."""
        for path in self.folder.rglob("*.tar*"):
            if path.name.endswith(_LOCK):
                continue
            with contextlib.suppress(OSError):
                if path.name.endswith(_PART) and _remove_abandoned(path):
                    continue
                state = path.stat()
                yield state.st_mtime, state.st_size, path


def _remove_abandoned(part: Path) -> bool:
    """Delete a part unless somebody is writing it; whether it is gone."""
    with _lock(part.with_name(part.name.removesuffix(_PART) + _LOCK)) as is_abandoned:
        if is_abandoned:
            with contextlib.suppress(PermissionError):  # Windows: another process has it open
                part.unlink(missing_ok=True)
                return True
    return False


def _write(path: Path, chunks: Iterable[bytes], size: int, sha256: str) -> None:
    digest, done = hashlib.sha256(), 0
    with path.open("r+b") as file:
        for chunk in chunks:
            done += len(chunk)
            if done > size:
                break
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if done != size:
        raise DamagedDownload(f"it has {'more than ' if done > size else ''}{min(done, size)} bytes instead of {size}")
    if digest.hexdigest() != sha256:
        raise DamagedDownload("its content differs from the checksum in dataset.json")


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether nobody else had the lock, or has it any more; it is held until the end, or that of the process."""
    try:
        import fcntl
    except ImportError:  # Windows: threads keep each other out; two processes may fetch the same file
        lock = _LOCKS_OF_THREADS.setdefault(path, threading.Lock())
        is_ours = lock.acquire(blocking=wait)
        try:
            yield is_ours
        finally:
            if is_ours:
                lock.release()
        return
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True

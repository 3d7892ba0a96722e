"""Files that are never half written, and paths as users write them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from alexnet.errors import RunError, UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], object], expected_bytes: int = 0) -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it into place.

    Raises RunError when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < expected_bytes:
        raise _disk_full(path, expected_bytes)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError without an errno.
        full = shutil.disk_usage(path.parent).free < expected_bytes
        if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            raise _disk_full(path, expected_bytes) from error
        if isinstance(error, OSError) or "inline_container" in str(error) or "PytorchStreamWriter" in str(error):
            raise RunError(f"Cannot write {path}: {error}. What was there before is kept.") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _disk_full(path: Path, expected_bytes: int) -> RunError:
    need = f" ({expected_bytes / 1e6:.0f} MB are needed)" if expected_bytes else ""
    return RunError(
        f"The disk is full: cannot write {path}{need}. Everything written before is kept; "
        "free some space and give the same command again, it goes on from the last checkpoint."
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read_json(path: Path, remedy: str = "delete it to have it written again") -> dict[str, Any]:
    """The JSON object in a file. Raises UserError when it is damaged, with what to do about that."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (no JSON object); {remedy}.")
    return value


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()), len(text))


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold a lock file that no other process holds at the same time; it ends with the block, or with the process."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there two processes can do the same work twice.
        yield
        return
    with path.open("ab") as file:
        with suppress(OSError):  # Some network disks have none.
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def expanded_path(text: str | os.PathLike[str]) -> Path:
    """The path, with the user's folder in place of a "~"; `Path.expanduser` raises for a user that is not there."""
    return Path(os.path.expanduser(text))

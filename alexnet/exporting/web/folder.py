"""A folder that is written as a whole: under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet.errors import RunError, UserError

MARK = "description.json"
"""Is in every folder of ours, so that another one is never replaced."""


def check_replaceable(output: Path) -> None:
    """Raises UserError for a path where something is that is no earlier export of this kind."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is no folder; give the path of a new folder")
    if output.is_dir() and any(output.iterdir()) and not _is_ours(output):
        raise UserError(f"--output {output} holds other files; give a new folder, or one of an earlier export")


def _is_ours(folder: Path) -> bool:
    return (folder / MARK).is_file() and (folder / "network-a.onnx").is_file()


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to fill; at the end of the block it becomes `output`, whatever folder was there before.

    Where the block fails, nothing is left of it. Raises RunError where the folder cannot be written.
    """
    output = output.resolve()  # of a link, what it leads to is replaced
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    before = output.with_name(f".{output.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if output.exists():
            output.rename(before)
        temporary.rename(output)
    except OSError as error:
        if before.exists() and not output.exists():
            before.rename(output)
        raise RunError(f"Cannot write {output}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)

"""Which file the name of a checkpoint means: of a run's folder, the one network that all commands use."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast, get_args

from alexnet.errors import UserError
from alexnet.runtime.files import expanded_path

Selection = Literal["last", "best"]
"""Which of its run's weights a checkpoint has: the last ones, or those with the lowest validation error."""
FOLDER = "checkpoints"
"""Of a run's folder."""
_SELECTIONS: tuple[Selection, ...] = get_args(Selection)


def checkpoint_file(path: str | Path) -> Path:
    """Return the file that a checkpoint's name means.

    A run's folder means the weights that the run's final evaluation measures: `evaluate.checkpoint` of its recipe,
    "last" by default. "best" weights were chosen by their error on the validation images, so that error flatters them.
    Where that file is missing, the other one is taken; `Checkpoint.selection` says which it is.

    Args:
        path: A checkpoint file, a run's folder, a folder with a model.safetensors, or hf:USER/NAME[@REVISION], a
            repository of the Hugging Face Hub, whose file is fetched.

    Raises:
        UserError: The folder holds no checkpoint, or the file cannot be fetched.
    """
    return checkpoint_files(path)[0]


def checkpoint_files(path: str | Path) -> list[Path]:
    """Return all files that a checkpoint's name can mean, at least one; the first is `checkpoint_file(path)`."""
    if is_on_the_hub(path):
        from alexnet.hub.remote import fetch_checkpoint

        return [fetch_checkpoint(str(path))]
    folder = expanded_path(path)
    if not folder.is_dir():
        return [folder]
    selections = sorted(_SELECTIONS, key=lambda selection: selection != _final_selection(folder))
    candidates = [*(folder / FOLDER / f"{selection}.pt" for selection in selections), folder / "model.safetensors"]
    found = [file for file in candidates if file.is_file()]
    if not found:
        raise UserError(
            f"{folder} is a folder without {FOLDER}/last.pt or {FOLDER}/best.pt; give a checkpoint file or a run's "
            "folder."
        )
    return found


def selection_of(file: Path) -> Selection | None:
    """Return what the name of a file in a run's folder says of its weights; None elsewhere."""
    match = re.fullmatch(r"(last|best)(?:-\d+)?", file.stem) if file.parent.name == FOLDER else None
    return None if match is None else cast(Selection, match[1])


def run_folder(file: Path) -> Path | None:
    """Return the folder of the run that a checkpoint file belongs to, None where it lies by itself."""
    folder = file.resolve().parent
    return folder.parent if folder.name == FOLDER else None


def is_on_the_hub(path: str | Path) -> bool:
    """Return whether a checkpoint's name is that of a repository of the Hugging Face Hub."""
    return str(path).startswith("hf:")


def _final_selection(folder: Path) -> Selection:
    """The weights that the final evaluation of a run is of, or will be."""
    selection = _value(folder / "summary.json", json.loads, "checkpoint")
    if selection not in _SELECTIONS:
        selection = _value(folder / "config.toml", tomllib.loads, "evaluate", "checkpoint")
    return cast(Selection, selection) if selection in _SELECTIONS else "last"


def _value(file: Path, parse: Callable[[str], Any], *keys: str) -> Any:
    """A value of a file of nested mappings; None where the file, or the value, is missing or damaged."""
    try:
        value = parse(file.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value

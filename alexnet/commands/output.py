"""JSON for machines: what `--json` prints and `--output` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.errors import UserError
from alexnet.runtime.text import json_text
from alexnet.training.checkpoint_files import checkpoint_file, is_on_the_hub

if TYPE_CHECKING:
    from alexnet.training.checkpoint import Checkpoint


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output; of the processes of one training, the first does."""
    if os.environ.get("RANK", "0") == "0":
        print(json_text(record))


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record to a file of the person's choice. Raises UserError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_text(record) + "\n", encoding="utf-8")
    except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
        raise UserError(f"cannot write --output {path}: {error.strerror}; give the path of a file") from None


def network_facts(given: str | Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return which network an output is of: the file, which of its run's weights ("last", "best" or None), the step.

    Args:
        given: The checkpoint as the user named it.
        checkpoint: What was loaded from it.
    """
    path = given if is_on_the_hub(given) else checkpoint_file(given)
    return {"path": str(path), "checkpoint": checkpoint.selection, "step": checkpoint.step}

"""What the commands that measure share: their file, their JSON, and the line about the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alexnet.commands.output import print_json, write_json
from alexnet.errors import UserError


def check_output(output: Path | None) -> None:
    """Raises UserError where a record cannot be written, before anything is measured."""
    if output is not None and output.is_dir():
        raise UserError(f"--output {output} is a folder; give the path of a file.")


def tell(record: Mapping[str, Any], show: Callable[[], None], output: Path | None, *, as_json: bool) -> None:
    """Print the record as JSON, or show it to a person; then write it to `output`."""
    # Printed first: a file that cannot be written must not cost the result.
    if as_json:
        print_json(record)
    else:
        show()
    if output is not None:
        write_json(output, record)


def machine_line(environment: Mapping[str, Any]) -> str:
    """The processor, its cores and how busy it was, for a person."""
    load = environment.get("load_average")
    busy = f", load average {load[0]:.1f}" if load else ""
    return f"{environment['processor']}, {environment['cores']} cores{busy}"

"""Drawings as files that a person chooses: .png or .svg, complete or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import UserError
from alexnet.reporting.figures import names_as_they_are
from alexnet.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
DOTS_PER_INCH = 150


def check_picture_path(path: Path) -> None:
    """Raises UserError for a file that no picture can be written to, before the work has begun."""
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; give the path of a file")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"pictures are written as .png or .svg, not as {path.name!r}; name the file accordingly")


def save_picture(figure: Figure, path: Path) -> None:
    """Write a drawing on white; the same drawing gives the same bytes. Raises RunError when the disk is full."""
    import matplotlib

    check_picture_path(path)
    kind = path.suffix.lower()[1:]
    contents = io.BytesIO()
    # Without a date and with names of its parts that do not change from one time to the next.
    metadata = {"Date": None} if kind == "svg" else {}
    figure.patch.set_alpha(1)  # drawings are transparent, for pages of any colour
    with names_as_they_are(figure), matplotlib.rc_context({"svg.hashsalt": "alexnet"}):
        figure.savefig(contents, format=kind, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    write_atomically(path, lambda file: file.write(contents.getvalue()), len(contents.getvalue()))

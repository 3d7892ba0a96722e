"""Tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet.runtime.text import print_lines, printable


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    numeric: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Print a table to `stream` (standard output): ruled on a terminal, plain columns elsewhere, never cut off there.

    `numeric` names the columns that are aligned to the right; None is shown as "-".
    """
    stream = stream if stream is not None else sys.stdout
    cells = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    console = Console(file=stream)
    if console.is_terminal:
        table = Table(title=None if title is None else Text(printable(title)), title_justify="left")
        for column in columns:
            table.add_column(Text(column), justify="right" if column in numeric else "left")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    if title is not None:
        print_lines(title, stream=stream)
    for line in [list(columns), *cells]:
        padded = [
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        print_lines("  ".join(padded).rstrip(), stream=stream)

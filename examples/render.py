"""Run a script with cells, and keep it as a notebook with its outputs: python examples/render.py [SCRIPT [NOTEBOOK]].

The cells run in this process, one after the other; what they print and the figures they show become their outputs. That
needs neither Jupyter nor a kernel, and the notebook is an ordinary one.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

DEFAULT_SCRIPT = Path(__file__).with_name("walk.py")
_CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def read_cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", source) of each cell of a script."""
    _, *parts = _CELL.split(text)
    cells = []
    for marker, body in zip(parts[::2], parts[1::2], strict=True):
        body = body.strip("\n")
        if "[markdown]" in marker:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            cells.append(("markdown", body))
        else:
            cells.append(("code", body))
    return cells


def run_cells(cells: list[tuple[str, str]], script: Path) -> list[dict[str, Any]]:
    """The cells in the notebook format, the code run in order in one namespace."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    outputs: list[dict[str, Any]] = []
    printed = io.StringIO()

    def keep_text() -> None:
        if printed.getvalue():
            outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
            printed.seek(0)
            printed.truncate()

    def show() -> None:
        keep_text()
        for number in plt.get_fignums():
            drawn, picture = io.BytesIO(), io.BytesIO()
            plt.figure(number).savefig(drawn, format="png", dpi=90, facecolor="white")
            # A palette makes the file a third as large, and no eye sees it.
            Image.open(drawn).convert("RGB").quantize(255).save(picture, format="png", optimize=True)
            data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
            outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
        plt.close("all")

    plt.show = show  # type: ignore[assignment]
    namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(script)}
    result = []
    for index, (kind, source) in enumerate(cells):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{index}", "metadata": {}, "source": _lines(source)}
        if kind == "code":
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"{script.name}, cell {index}", "exec"), namespace)
            keep_text()
            cell |= {"execution_count": index, "outputs": list(outputs)}
            outputs.clear()
        result.append(cell)
    return result


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(script: Path, notebook: Path) -> None:
    """Run `script` and write `notebook`."""
    cells = run_cells(read_cells(script.read_text(encoding="utf-8")), script)
    language = {"name": "python", "pygments_lexer": "ipython3"}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": language},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    notebook.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    chosen = given[0] if given else DEFAULT_SCRIPT
    main(chosen, given[1] if len(given) > 1 else chosen.with_suffix(".ipynb"))

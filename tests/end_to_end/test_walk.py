"""The walk through the network: it runs, and the notebook that is kept is that script after it was run."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT, NOTEBOOK = EXAMPLES / "walk.py", EXAMPLES / "walk.ipynb"


def read_cells(text):
    spec = importlib.util.spec_from_file_location("render", EXAMPLES / "render.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_cells(text)


@pytest.mark.slow
def test_the_walk_runs_from_beginning_to_end(tmp_path):
    environment = {**os.environ, "ALEXNET_WALK": "quick"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / "render.py"), str(SCRIPT), str(tmp_path / "walk.ipynb")]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    cells = json.loads((tmp_path / "walk.ipynb").read_text())["cells"]
    shown = [output["output_type"] for cell in cells for output in cell.get("outputs", [])]
    assert shown.count("display_data") >= 9 and shown.count("stream") >= 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.ipynb"], "nothing else is left behind"


def test_the_notebook_is_the_script():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    kept = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    assert kept == read_cells(SCRIPT.read_text(encoding="utf-8")), "run `make walk`, which runs it and keeps it"


def test_the_notebook_is_small_and_was_run_in_full():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}, "no errors, no warnings"
    assert "of 200 pictures wrong" in text, "not the quick form"


def test_what_the_walk_links_to_exists():
    for target in re.findall(r"\]\(([^)]+)\)", SCRIPT.read_text(encoding="utf-8")):
        assert (EXAMPLES / target).exists(), target

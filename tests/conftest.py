"""What all tests share: the real data sets' folder, torch on few threads, and repeatable property tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
import torch

# The same examples every time: a change is judged by what it changes. HYPOTHESIS_PROFILE=explore looks for new ones.
# No deadlines: a test must not fail because the machine is busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("explore", derandomize=False, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Without a GPU, Triton kernels are tested in Triton's interpreter. It is chosen when a kernel's module is imported, so
# it has to be before any of them is.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _few_torch_threads() -> None:
    """Tests run side by side; each of them with all cores would only be in the others' way."""
    torch.set_num_threads(int(os.environ.get("ALEXNET_TEST_THREADS", "2")))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets; the test is skipped where there is none."""
    named = os.environ.get("ALEXNET_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        how = "named by ALEXNET_DATA" if named else "the default; ALEXNET_DATA is not set"
        pytest.skip(f"no real data: looked for the folder {folder} ({how})")
    return folder


class Outcome(NamedTuple):
    """What a command came to: its exit code, and what it printed on both streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def alexnet(capsys, monkeypatch):
    """alexnet(WORD, ...) runs the command in this process, as `main` does, and returns an `Outcome`."""
    from alexnet import cli

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["alexnet", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Outcome(int(caught.value.code or 0), *capsys.readouterr())

    return run

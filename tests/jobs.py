"""Trainings in processes of their own, by the command a person would give, to be interrupted and looked at by tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from alexnet.reporting.metrics_log import read_events


def command(num_processes: int, arguments: Sequence[str], *, restarts: int = 0) -> list[str]:
    """`alexnet ARGUMENTS`, started by torchrun where there are several processes."""
    launcher = []
    if num_processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        launcher = [*torchrun, f"--nproc-per-node={num_processes}", f"--max-restarts={restarts}"]
    return [sys.executable, *launcher, "-m", "alexnet", *arguments]


def one_thread_each() -> dict[str, str]:
    """The environment for them."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Job:
    """A training that runs beside the test, in a process group of its own; what it prints goes to a file."""

    def __init__(self, command: Sequence[str], output: Path, *, name: str = "", **options: object) -> None:
        """name: of the log, where several jobs work on one run."""
        self.output = output
        self.log = output.parent / f"{name or output.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=one_thread_each(), start_new_session=True, **options
            )  # type: ignore[call-overload]

    def wait_for_step(self, step: int, seconds: float = 120) -> None:
        """Wait until the log has a line of that step. Raises AssertionError where the job ends before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = read_events(self.output / "metrics.jsonl")
            if any(event["step"] >= step for event in events if event["event"] == "step"):
                return
            assert self.process.poll() is None, self.text()
            time.sleep(0.02)
        raise AssertionError(f"step {step} did not come: {self.text()}")

    def workers(self) -> list[int]:
        """The ids of the processes that torchrun has started, by rank; found under /proc."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and int((folder / "stat").read_text().split()[3]) == self.process.pid:
                    items = (folder / "environ").read_text().split("\0")
                    environment = dict(item.split("=", 1) for item in items if "=" in item)
                    found[int(environment["RANK"])] = int(folder.name)
            except (OSError, KeyError, IndexError):
                continue
        return [found[rank] for rank in sorted(found)]

    def kill_all(self) -> None:
        """As when the machine goes down: nobody gets to say anything."""
        for process in self.workers():
            _kill(process)
        _kill(self.process.pid)
        self.process.wait()

    def finish(self, seconds: float = 240) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"it hangs: {self.text()}") from None

    def text(self) -> str:
        """What has been printed."""
        return self.log.read_text(errors="replace")


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    """Of a run's last checkpoint."""
    return torch.load(output / "checkpoints" / "last.pt", weights_only=True)["model_state"]


def differing_weights(one: Path, other: Path) -> list[str]:
    """Names of the parameters that are not equal to the last bit."""
    ours = weights_of(other)
    return [name for name, value in weights_of(one).items() if not torch.equal(value, ours[name])]

"""What it costs to share the work of a step among processes of one machine, and to write checkpoints beside it."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from alexnet.benchmark.contestants import ours, random_batches
from alexnet.benchmark.job import Job
from alexnet.benchmark.untrained import save_untrained
from alexnet.errors import RunError
from alexnet.reporting.metrics_log import read_events
from alexnet.reporting.progress import Progress
from alexnet.training.checkpoint import load_checkpoint
from alexnet.training.checkpoint_writer import CheckpointWriter

STEPS, WARM_UP_STEPS = 24, 8
"""Of a block; the first ones are not counted."""
SAVING_STEPS, SAVE_EVERY = 60, 12
_SECONDS = 600


@dataclass(frozen=True)
class ScalingJob:
    """The work that is shared: steps of a variant on drawn shapes."""

    model: str
    image_size: int
    batch_size: int
    precision: str
    processes: int
    rounds: int


@dataclass
class Way:
    """One way to do it; images a second of each block."""

    name: str
    processes: int
    threads: int
    overrides: tuple[str, ...] = ()
    rates: list[float] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """The median of the blocks."""
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Saving:
    """Steps of a training while checkpoints are written, and without."""

    median_ms: float
    """Of the steps during which nothing was written."""
    longest_ms: float
    """Of those from the call that begins to write until everything is on the disk."""
    longest_without_ms: float
    """Of the steps during which nothing was written."""
    checkpoint_mb: float
    checkpoints: int

    @property
    def ratio(self) -> float:
        """The longest step while writing over the median of the others."""
        return self.longest_ms / self.median_ms


def ways(job: ScalingJob) -> list[Way]:
    """One process with as many threads as there are processes in the others, and every way to share the work."""
    together = f"{job.processes} processes"
    found = [
        Way(f"one process, {job.processes} threads", 1, job.processes),
        Way(together, job.processes, 1),
        Way(f"{together}, classifier sharded", job.processes, 1, ('parallel.classifier="shard"',)),
        Way(f"{together}, weights sharded", job.processes, 1, ('parallel.weights="shard"',)),
    ]
    if job.processes == 2:
        found.insert(2, Way("two towers", 2, 1, ("parallel.towers=2",)))
    return found


def measure_scaling(job: ScalingJob, folder: Path, progress: Progress) -> list[Way]:
    """All ways in turn, in blocks. Raises RunError where a training fails."""
    found = ways(job)
    count = progress.counter("Measuring", unit="blocks")
    total = job.rounds * len(found)
    for number, (block, way) in enumerate(itertools.product(range(job.rounds), found)):
        way.rates.append(_rate(job, way, folder / f"{block}-{found.index(way)}"))
        count(number + 1, total)
    return found


def _rate(job: ScalingJob, way: Way, output: Path) -> float:
    settings = [
        f"model.name={job.model}",
        f"model.image_size={job.image_size}",
        f"data.image_size={job.image_size}",
        f"data.max_train_images={job.batch_size}",
        f"train.batch_size={job.batch_size}",
        f"train.epochs={STEPS}",
        "train.min_steps=none",
        f"train.evaluate_every_epochs={STEPS}",
        f"logging.log_every_steps={WARM_UP_STEPS}",
        "evaluate.views=center",
        f"runtime.precision={job.precision}",
        f"runtime.num_threads={way.threads}",
        "runtime.num_workers=1",
        *way.overrides,
    ]
    launcher = ["--devices", str(way.processes)] if way.processes > 1 else []
    command = [sys.executable, "-m", "alexnet", "train", "folder", "--data", f"shapes:{job.image_size}", *launcher]
    done = subprocess.run(
        [*command, "--output", str(output), "--quiet", *settings],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": str(way.threads)},
    )
    if done.returncode:
        raise RunError(f"{way.name} failed: {done.stderr.strip().splitlines()[-1]}")
    steps = [event for event in read_events(output / "metrics.jsonl") if event["event"] == "step"]
    first, last = steps[0], steps[-1]
    return job.batch_size * (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def measure_saving(model: str, batch_size: int, precision: str, folder: Path, progress: Progress) -> Saving:
    """Steps of our training in this process, every twelfth followed by a checkpoint that is written beside the next."""
    assert precision in ("bfloat16", "float32")
    contestant = ours(Job("train", model, batch_size, precision, "cpu", None))
    assert contestant.model is not None and contestant.optimizer is not None
    batches = itertools.cycle(random_batches(contestant.architecture, batch_size))
    checkpoint = load_checkpoint(save_untrained(folder / "untrained.pt", model))
    path, count = folder / "last.pt", progress.counter("Measuring checkpoints", unit="steps")
    while_writing, others = [], []
    for _ in range(3):
        contestant.step(next(batches))
    with CheckpointWriter() as writer:
        for step in range(SAVING_STEPS):
            began, was_writing = time.perf_counter(), writer.is_writing
            contestant.step(next(batches))
            is_saved = step % SAVE_EVERY == SAVE_EVERY - 1
            if is_saved:
                state = {"optimizer": contestant.optimizer.state_dict()}
                model_state = contestant.model.state_dict()
                writer.write(path, replace(checkpoint, model_state=model_state, training_state=state), keep=2)
            milliseconds = 1000 * (time.perf_counter() - began)
            (while_writing if was_writing or is_saved else others).append(milliseconds)
            count(step + 1, SAVING_STEPS)
    return Saving(
        statistics.median(others),
        max(while_writing),
        max(others),
        path.stat().st_size / 1e6,
        SAVING_STEPS // SAVE_EVERY,
    )

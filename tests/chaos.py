"""Trainings that are broken at random moments, in every way we know, and have to end with the unbroken run's weights.

`python tests/chaos.py --trials 30` writes a record; the tests run a few trials of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs import Job, command, differing_weights

NUM_PROCESSES = 2
NUM_STEPS = 24
SETTINGS = (
    "model.name=cifar_quick",
    "data.image_size=32",
    "data.max_train_images=96",
    "train.batch_size=16",
    "train.epochs=4",
    "train.min_steps=none",
    "train.evaluate_every_epochs=2",
    "train.checkpoint_minutes=0",
    "train.keep_checkpoints=2",
    "optimizer.lr=0.001",
    'evaluate.views="center"',
    'runtime.precision="float32"',
    "runtime.num_threads=1",
    "runtime.num_workers=1",
    "parallel.timeout_minutes=1",
)
CHECKPOINT_BYTES = 200_000
"""Less than a checkpoint of this network has, and more than anything else that is written."""


def arguments(output: Path) -> list[str]:
    """A run of 24 steps, with a checkpoint after each."""
    return ["train", "folder", "--data", "shapes:32", "--output", str(output), *SETTINGS]


def start(output: Path, *, restarts: int = 3, **options: Any) -> Job:
    """In two processes, which torchrun starts again."""
    return Job(command(NUM_PROCESSES, arguments(output), restarts=restarts), output, **options)


def kill_one(job: Job, chance: random.Random) -> None:
    """A process dies; torchrun starts all of them again."""
    workers = job.workers()
    if workers:
        os.kill(chance.choice(workers), signal.SIGKILL)
    job.finish()


def kill_all(job: Job, chance: random.Random) -> None:
    """The machine goes down."""
    job.kill_all()


def kill_while_writing(job: Job, chance: random.Random) -> None:
    """The machine goes down while a checkpoint is half written."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and job.process.poll() is None:
        if any((job.output / "checkpoints").glob(".*.tmp")):
            break
    job.kill_all()


def damage(job: Job, chance: random.Random) -> None:
    """The machine goes down, and the last checkpoint has other bytes in one place afterwards."""
    job.kill_all()
    path = job.output / "checkpoints" / "last.pt"
    if path.is_file():
        content = bytearray(path.read_bytes())
        place = chance.randrange(len(content))
        content[place] ^= 0xFF
        path.write_bytes(content)


def cut_short(job: Job, chance: random.Random) -> None:
    """The machine goes down, and the last checkpoint is shorter afterwards."""
    job.kill_all()
    path = job.output / "checkpoints" / "last.pt"
    if path.is_file():
        os.truncate(path, chance.randrange(path.stat().st_size))


def terminate(job: Job, chance: random.Random) -> None:
    """A scheduler's notice, to torchrun or to one of the processes; everything is saved in order."""
    targets = [(job.process.pid, signal.SIGTERM)]
    targets += [(worker, number) for worker in job.workers() for number in (signal.SIGTERM, signal.SIGUSR1)]
    with suppress(ProcessLookupError):
        os.kill(*chance.choice(targets))
    job.finish()


FAULTS = {fault.__name__: fault for fault in (kill_one, kill_all, kill_while_writing, damage, cut_short, terminate)}
DISK_FULL = "disk_full"
"""The disk has no room for a checkpoint from the beginning of a start on."""


def trial(number: int, folder: Path, unbroken: Path) -> dict[str, Any]:
    """Break one run once or twice, go on until it is finished, and compare. Everything random follows from `number`."""
    chance = random.Random(number)
    output = folder / f"trial-{number}"
    faults, starts, began = [], 0, time.monotonic()
    for _ in range(chance.choice([1, 1, 2])):
        fault, step = chance.choice([*FAULTS, DISK_FULL]), chance.randrange(1, NUM_STEPS - 1)
        faults.append(f"{fault} after step {step}")
        starts += 1
        if fault == DISK_FULL:
            limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (CHECKPOINT_BYTES, CHECKPOINT_BYTES))  # noqa: E731
            start(output, restarts=0, preexec_fn=limit).finish()
            continue
        job = start(output)
        try:
            job.wait_for_step(step)
        except AssertionError:
            if job.finish() != 0:  # it had got so far before; then there is nothing to break
                raise
            continue
        time.sleep(chance.random() * 0.2)
        FAULTS[fault](job, chance)
    log = folder / f"{output.name}.log"
    while not (output / "summary.json").is_file():
        starts += 1
        assert starts < 8, f"trial {number} ({faults}) comes to no end: {log.read_text()}"
        code = start(output).finish()
        assert code == 0, f"trial {number} ({faults}): exit code {code}: {log.read_text()}"
    return {
        "trial": number,
        "faults": faults,
        "starts": starts,
        "seconds": round(time.monotonic() - began, 1),
        "differing_weights": differing_weights(unbroken, output),
    }


def run(trials: range, folder: Path) -> list[dict[str, Any]]:
    """The unbroken run, and the trials one after the other."""
    unbroken = folder / "unbroken"
    code = start(unbroken).finish()
    assert code == 0, (folder / "unbroken.log").read_text()
    results = []
    for number in trials:
        results.append(trial(number, folder, unbroken))
        print(json.dumps(results[-1]), flush=True)
    return results


def main() -> None:
    """All trials, and a record of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="number of the first trial")
    parser.add_argument("--record", type=Path, help="file for the results, JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(range(options.seed, options.seed + options.trials), Path(folder))
    bad = [result["trial"] for result in results if result["differing_weights"]]
    faults = Counter(fault.split(" after")[0] for result in results for fault in result["faults"])
    good = len(results) - len(bad)
    print(f"{good} of {len(results)} ended with the weights of the unbroken run, bit for bit; {dict(faults)}")
    if options.record is not None:
        record = {"processes": NUM_PROCESSES, "steps": NUM_STEPS, "settings": SETTINGS, "trials": results}
        options.record.write_text(json.dumps(record, indent=1))
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()

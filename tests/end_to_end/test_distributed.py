"""Several processes train as one would: the same images, the same sums, and nothing lost when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.reporting.metrics_log import read_events

pytestmark = pytest.mark.slow

# as_run at its smallest input; without flips of the loss by chance, a few steps at a low rate.
SETTINGS = (
    "model.image_size=67",
    "data.image_size=72",
    "data.max_train_images=240",
    "train.epochs=1",
    "train.min_steps=none",
    "train.batch_size=24",
    "train.checkpoint_minutes=0",
    "logging.log_every_steps=2",
    'runtime.precision="float32"',
    "runtime.num_threads=1",
    'evaluate.views="center"',
)
NUM_STEPS = 10


def arguments(output, *overrides):
    return ["-m", "alexnet", "train", "folder", "--data", "shapes:72", "--output", str(output), *SETTINGS, *overrides]


def command(num_processes, output, *overrides, restarts=0):
    launcher = []
    if num_processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        launcher = [*torchrun, f"--nproc-per-node={num_processes}", f"--max-restarts={restarts}"]
    return [sys.executable, *launcher, *arguments(output, *overrides)]


def run(num_processes, output, *overrides, **options):
    done = subprocess.run(
        command(num_processes, output, *overrides, **options),
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done


def finish(num_processes, output, *overrides, **options):
    done = run(num_processes, output, *overrides, **options)
    assert done.returncode == 0, done.stderr
    return output


def weights(output):
    return torch.load(Path(output) / "checkpoints" / "last.pt", weights_only=True)["model_state"]


def layers(output):
    """Each layer's weights and biases as one vector; a bias that began at zero is no measure for itself."""
    found = {}
    for name, tensor in weights(output).items():
        found.setdefault(name.rpartition(".")[0], []).append(tensor.flatten())
    return {layer: torch.cat(tensors) for layer, tensors in found.items()}


def assert_close_weights(one, other):
    ours = layers(other)
    for layer, vector in layers(one).items():
        assert torch.linalg.norm(ours[layer] - vector) <= 1e-5 * torch.linalg.norm(vector), layer


def assert_equal_weights(one, other):
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process."""
    return finish(1, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes that nothing interrupts."""
    return finish(2, tmp_path_factory.mktemp("two") / "run")


@pytest.mark.parametrize("num_processes", [2, 4])
def test_any_number_of_processes_gives_the_result_of_one(num_processes, alone, two, tmp_path):
    together = two if num_processes == 2 else finish(num_processes, tmp_path / "run")
    assert_close_weights(alone, together)
    with np.load(alone / "evaluation.npz") as one, np.load(together / "evaluation.npz") as many:
        assert np.array_equal(one["labels"], many["labels"])  # every image once, in order
        assert np.array_equal(one["probabilities"].argmax(1), many["probabilities"].argmax(1))
        assert np.allclose(one["probabilities"], many["probabilities"], atol=1e-5)
    losses = [[event["loss"] for event in read_events(folder / "metrics.jsonl") if event["event"] == "step"]
              for folder in (alone, together)]  # fmt: skip
    assert len(losses[0]) == NUM_STEPS  # one line a step, since every step is saved
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def start(num_processes, output, *overrides, **options):
    return subprocess.Popen(
        command(num_processes, output, *overrides, **options),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )  # fmt: skip


def wait_for_step(output, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(event["step"] >= step for event in read_events(output / "metrics.jsonl") if event["event"] == "step"):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} did not come")


def workers_of(launcher):
    """The processes that torchrun has started, by rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int((folder / "stat").read_text().split()[3]) == launcher.pid:
                environment = dict(
                    item.split("=", 1) for item in (folder / "environ").read_text().split("\0") if "=" in item
                )
                found[int(environment["RANK"])] = int(folder.name)
        except (OSError, KeyError, IndexError):
            continue
    return [found[rank] for rank in sorted(found)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes under /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_costs_nothing(rank, two, tmp_path):
    output = tmp_path / "run"
    running = start(2, output, restarts=1)
    wait_for_step(output, 4)
    os.kill(workers_of(running)[rank], signal.SIGKILL)
    text, _ = running.communicate(timeout=240)
    assert running.returncode == 0, text
    assert "Continuing at step" in text
    assert_equal_weights(output, two)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes under /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_process_stops_all_after_the_same_step(number, two, tmp_path):
    output = tmp_path / "run"
    running = start(2, output)
    wait_for_step(output, 2)
    os.kill(workers_of(running)[1], number)
    text, _ = running.communicate(timeout=240)
    assert "everything saved" in text
    assert not (output / "summary.json").exists()
    finish(2, output)
    assert_equal_weights(output, two)


def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    output = tmp_path / "run"
    running = start(1, output)
    wait_for_step(output, 4)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=120) == 75  # "try again later", for schedulers
    finish(2, output)
    assert_close_weights(alone, output)


def test_a_mistake_is_told_once(tmp_path):
    done = run(2, tmp_path / "run", "train.batch_size=1")
    ours = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert ours == [
        "error: train.batch_size = 1 leaves some of 2 processes without an image; raise it, or start fewer processes."
    ]


def test_devices_starts_the_processes(two, tmp_path):
    output = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, *arguments(output, "--devices", "2", "--json")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"] is True
    assert_equal_weights(output, two)
    refused = subprocess.run(
        [sys.executable, *arguments(output, "--devices=2", "optimizer.lr=7.0")], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "optimizer.lr" in refused.stderr


def test_a_loss_that_is_not_finite_stops_all(tmp_path):
    done = run(2, tmp_path / "run", "optimizer.lr=1e30")
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(ours) == 1 and "not finite" in ours[0]

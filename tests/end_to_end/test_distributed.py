"""Several processes train as one would: the same images, the same sums, and nothing lost when one of them dies."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import Job, command, differing_weights, one_thread_each, weights_of

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
    "logging.log_every_steps=2",
    'runtime.precision="float32"',
    "runtime.num_threads=1",
    'evaluate.views="center"',
)
NUM_STEPS = 10
SAVE_ALWAYS = "train.checkpoint_minutes=0"
"""A checkpoint, and a line of the log, after every step."""


def arguments(output, *overrides):
    return ["train", "folder", "--data", "shapes:72", "--output", str(output), *SETTINGS, *overrides]


def run(num_processes, output, *overrides, **options):
    return subprocess.run(
        command(num_processes, arguments(output, *overrides), **options),
        capture_output=True, text=True, timeout=240, env=one_thread_each(),
    )  # fmt: skip


def finish(num_processes, output, *overrides, **options):
    done = run(num_processes, output, *overrides, **options)
    assert done.returncode == 0, done.stderr
    return output


def start(num_processes, output, *overrides, **options):
    return Job(command(num_processes, arguments(output, *overrides), **options), output)


def layers(output):
    """Each layer's weights and biases as one vector; a bias that began at zero is no measure for itself."""
    found = {}
    for name, tensor in weights_of(output).items():
        found.setdefault(name.rpartition(".")[0], []).append(tensor.flatten())
    return {layer: torch.cat(tensors) for layer, tensors in found.items()}


def assert_close_weights(one, other):
    ours = layers(other)
    for layer, vector in layers(one).items():
        assert torch.linalg.norm(ours[layer] - vector) <= 1e-5 * torch.linalg.norm(vector), layer


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
    with np.load(alone / "statistics.npz") as one, np.load(together / "statistics.npz") as many:
        assert all(np.array_equal(one[name], many[name]) for name in one.files)
    losses = [[event["loss"] for event in read_events(folder / "metrics.jsonl") if event["event"] == "step"]
              for folder in (alone, together)]  # fmt: skip
    assert len(losses[0]) == NUM_STEPS // 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("way", ["towers=2", 'classifier="shard"'])
def test_a_divided_network_gives_the_result_of_one_process(way, alone, tmp_path):
    together = finish(2, tmp_path / "run", f"parallel.{way}")
    assert_close_weights(alone, together)
    with np.load(alone / "evaluation.npz") as one, np.load(together / "evaluation.npz") as many:
        assert np.array_equal(one["probabilities"].argmax(1), many["probabilities"].argmax(1))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes under /proc")
def test_a_process_that_dies_costs_nothing(two, tmp_path):
    output = tmp_path / "run"
    running = start(2, output, SAVE_ALWAYS, restarts=1)
    running.wait_for_step(4)
    os.kill(running.workers()[1], signal.SIGKILL)
    assert running.finish() == 0, running.text()
    assert "Continuing at step" in running.text()
    assert differing_weights(output, two) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes under /proc")
def test_a_signal_to_one_process_stops_all_after_the_same_step(two, tmp_path):
    output = tmp_path / "run"
    running = start(2, output, SAVE_ALWAYS)
    running.wait_for_step(2)
    os.kill(running.workers()[1], signal.SIGUSR1)
    running.finish()
    assert "everything saved" in running.text()
    assert not (output / "summary.json").exists()
    finish(2, output)
    assert differing_weights(output, two) == []


def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    output = tmp_path / "run"
    running = start(1, output, SAVE_ALWAYS)
    running.wait_for_step(4)
    running.process.send_signal(signal.SIGTERM)
    assert running.finish() == 75, running.text()  # "try again later", for schedulers
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
        command(1, arguments(output, "--devices", "2", "--json")), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"] is True
    assert differing_weights(output, two) == []
    refused = subprocess.run(
        command(1, arguments(output, "--devices=2", "optimizer.lr=7.0")), capture_output=True, text=True
    )
    assert refused.returncode == 2 and "optimizer.lr" in refused.stderr


def test_a_loss_that_is_not_finite_stops_all(tmp_path):
    done = run(2, tmp_path / "run", "optimizer.lr=1e30")
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(ours) == 1 and "not finite" in ours[0]

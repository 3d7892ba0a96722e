"""A run that begins with a trained network, killed anywhere, ends with the same weights, bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from alexnet.reporting.metrics_log import read_events

SETTINGS = [
    "train.epochs=2",
    "train.min_steps=none",
    "train.batch_size=50",
    "data.max_train_images=250",
    "train.checkpoint_minutes=0",
    "logging.log_every_steps=2",
    "runtime.num_threads=1",
    'runtime.precision="float32"',
    'evaluate.views="center"',
]
NUM_STEPS = 10


def command(output, *arguments):
    given = ["--data", "shapes:32", "--output", str(output), *SETTINGS, *arguments]
    return [sys.executable, "-m", "alexnet", "train", *given]


def finish(output, *arguments):
    done = subprocess.run(command(output, *arguments), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network for digits; the shapes are other classes, but as many."""
    folder = tmp_path_factory.mktemp("trained") / "digits"
    recipe = ["cifar-quick", "train.epochs=0.4", "--data", "digits"]
    finish(folder, *recipe)
    return folder


def wait_for_step(output, step):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if any(event["event"] == "step" and event["step"] >= step for event in read_events(output / "metrics.jsonl")):
            return
        time.sleep(0.01)
    raise AssertionError(f"the run did not reach step {step}")


def last_of(output):
    return torch.load(output / "checkpoints" / "last.pt", weights_only=True)


@pytest.mark.slow
def test_a_killed_transfer_ends_with_the_same_weights(trained, tmp_path):
    start = ["transfer", "--init", str(trained), "--freeze", "conv1"]
    told = finish(tmp_path / "whole", *start)
    assert "conv1, conv2, conv3, fc64 copied; fc10 new (for 10 classes); conv1 frozen" in told
    run = subprocess.Popen(command(tmp_path / "killed", *start), stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_step(tmp_path / "killed", 4)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)
    # What the run began with changes meanwhile; its own recipe and checkpoint are enough to go on.
    (trained / "checkpoints" / "best.pt").write_bytes(b"another file")
    told = finish(tmp_path / "killed", str(tmp_path / "killed"))
    assert "Continuing at step" in told
    whole, killed = last_of(tmp_path / "whole"), last_of(tmp_path / "killed")
    assert whole["step"] == killed["step"] == NUM_STEPS
    for name, tensor in whole["model_state"].items():
        assert torch.equal(tensor, killed["model_state"][name]), name
    velocities, again = (item["training_state"]["optimizer"]["state"] for item in (whole, killed))
    assert velocities.keys() == again.keys()
    assert all(torch.equal(state["velocity"], again[number]["velocity"]) for number, state in velocities.items())
    assert torch.equal(whole["preprocessing"]["mean_image"], killed["preprocessing"]["mean_image"])

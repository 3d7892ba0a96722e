"""A run is a pure function of (recipe, data, seed): killed anywhere, it ends with the same weights, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from alexnet.config_io import load_recipe
from alexnet.errors import UserError
from alexnet.reporting.metrics_log import read_events
from alexnet.training.run import train

SETTINGS = [
    "train.epochs=3",
    "train.batch_size=50",
    "data.max_train_images=250",
    "train.ema_decay=0.9",
    "augment.flip=true",
    "augment.color_noise=0.1",
    "train.checkpoint_minutes=0",
    "logging.log_every_steps=2",
    "runtime.num_threads=1",
    'evaluate.views="center"',
]
NUM_STEPS = 15


def settings(precision, num_workers):
    return [*SETTINGS, f'runtime.precision="{precision}"', f"runtime.num_workers={num_workers}"]


def command(output, *overrides):
    arguments = ["train", "cifar-quick", "--data", "shapes:32", "--output", str(output), *overrides]
    return [sys.executable, "-m", "alexnet", *arguments]


def start(output, *overrides):
    return subprocess.Popen(
        command(output, *overrides), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(output, *overrides):
    done = subprocess.run(command(output, *overrides), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def weights(output):
    return torch.load(Path(output) / "checkpoints" / "last.pt", weights_only=True)


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a["step"] == b["step"] == NUM_STEPS
    for name, tensor in a["model_state"].items():
        assert torch.equal(tensor, b["model_state"][name]), name
    for name, tensor in a["training_state"]["weights"].items():
        assert torch.equal(tensor, b["training_state"]["weights"][name]), name
    for index, state in a["training_state"]["optimizer"]["state"].items():
        assert torch.equal(state["velocity"], b["training_state"]["optimizer"]["state"][index]["velocity"])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Output folders of runs that nobody disturbed, by precision."""
    folders = {}
    for precision in ("float32", "bfloat16"):
        folders[precision] = tmp_path_factory.mktemp("unbroken") / precision
        finish(folders[precision], *settings(precision, 0))
    return folders


def wait_for_step(output, step):
    """Until the run's log has reached a step (at most a minute)."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(event["event"] == "step" and event["step"] >= step for event in read_events(output / "metrics.jsonl")):
            return
        time.sleep(0.01)
    raise AssertionError(f"the run did not reach step {step}")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "num_workers"), [("float32", 0), ("float32", 4), ("bfloat16", 1)])
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(unbroken, tmp_path, precision, num_workers):
    output = tmp_path / "killed"
    for step in (4, 10):
        run = start(output, *settings(precision, num_workers))
        wait_for_step(output, step)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=30)
    finish(output, *settings(precision, num_workers))
    assert_same_weights(unbroken[precision], output)
    steps = [event["step"] for event in read_events(output / "metrics.jsonl") if event["event"] == "step"]
    assert steps == sorted(set(steps)) and steps[-1] == NUM_STEPS  # nothing is logged twice


KILLED_WHILE_WRITING = """
import os, signal, sys, torch
save, count = torch.save, 0
def save_half(contents, file):
    global count
    count += contents["training_state"] is not None
    if count == 7:
        import io
        whole = io.BytesIO()
        save(contents, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(contents, file)
torch.save = save_half
from alexnet.cli import main
sys.argv = ["alexnet", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_a_run_killed_while_it_writes_a_checkpoint_loses_nothing(unbroken, tmp_path):
    output = tmp_path / "killed"
    arguments = command(output, *settings("float32", 1))[3:]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, *arguments], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert weights(output)["step"] == 6  # the checkpoint before is whole
    finish(output, *settings("float32", 1))
    assert_same_weights(unbroken["float32"], output)
    assert not list((output / "checkpoints").glob(".*.tmp")), "the torn file is cleaned away"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_exits_cleanly(unbroken, tmp_path, number):
    output = tmp_path / "stopped"
    # No checkpoint by time: what is there afterwards was saved because of the signal.
    overrides = [*settings("float32", 1), "train.checkpoint_minutes=1000", "logging.log_every_steps=1"]
    run = start(output, *overrides)
    wait_for_step(output, 3)
    run.send_signal(number)
    text, _ = run.communicate(timeout=60)
    # A shell's code for Ctrl-C; "try again later" for a scheduler's notice.
    assert run.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[number], text
    assert "same command goes on" in text
    assert 3 <= weights(output)["step"] < NUM_STEPS
    assert not (output / "summary.json").exists()
    finish(output, *settings("float32", 1))
    assert_same_weights(unbroken["float32"], output)


def test_a_finished_run_is_not_done_again(unbroken):
    before = (unbroken["float32"] / "checkpoints" / "last.pt").stat().st_mtime_ns
    done = finish(unbroken["float32"], *settings("float32", 0))
    assert "finished" in done.stderr
    assert (unbroken["float32"] / "checkpoints" / "last.pt").stat().st_mtime_ns == before


def test_a_folder_with_another_run_is_refused_and_says_what_differs(unbroken):
    other = [*settings("float32", 0), "optimizer.lr=0.5", "seed=3"]
    refused = subprocess.run(command(unbroken["float32"], *other), capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "optimizer.lr" in refused.stderr and "0.5" in refused.stderr and "seed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_another_data_set_is_refused(unbroken):
    with pytest.raises(UserError, match="the data"):
        overrides = [setting for setting in settings("float32", 0) if "max_train_images" not in setting]
        train("cifar-quick", "shapes:32", unbroken["float32"], overrides=[*overrides, "data.max_train_images=251"])


def test_the_summary_has_what_scripts_need(unbroken):
    summary = json.loads((unbroken["float32"] / "summary.json").read_text())
    assert {"top1_error", "top5_error", "num_images", "views", "step", "images_per_second"} <= summary.keys()
    assert summary["num_images"] == 200 and summary["views"] == "center" and summary["step"] == NUM_STEPS
    assert load_recipe(unbroken["float32"] / "config.toml").seed == 0

"""A run whose loss was not finite, repeated."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from alexnet.cli import app
from alexnet.doctor import replayed
from alexnet.doctor.replayed import inspect_replay
from alexnet.errors import RunError, UserError
from alexnet.reporting.metrics_log import read_events
from alexnet.reporting.progress import Progress
from alexnet.training.checkpoint import load_checkpoint
from alexnet.training.replay import replay
from alexnet.training.run import train

SETTINGS = (
    "model.name=cifar_quick",
    "data.image_size=32",
    "data.max_train_images=64",
    "train.batch_size=16",
    "train.epochs=4",
    "train.evaluate_every_epochs=4",
    "evaluate.views=center",
    "runtime.precision=float32",
    "logging.log_every_steps=1",
)


def diverge(output, *overrides):
    """Train until the loss is not finite; the step at which it was not."""
    with pytest.raises(RunError, match="--replay"):
        train("folder", "shapes:32", output, overrides=[*SETTINGS, *overrides], progress="silent")
    return [event["step"] for event in read_events(output / "metrics.jsonl") if event["event"] == "diverged"][-1]


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A run without a checkpoint, whose second step has weights as large as the rate."""
    output = tmp_path_factory.mktemp("diverged") / "run"
    return output, diverge(output, "optimizer.lr=1e30")


@pytest.fixture
def display():
    with Progress("silent") as made:
        yield made


def test_the_batch_is_kept_whole_with_the_names_of_its_images(diverged):
    output, step = diverged
    with np.load(output / "diverged.npz", allow_pickle=False) as kept:
        assert int(kept["step"]) == step
        assert kept["crops"].shape == (16, 32, 32, 3) and kept["crops"].std() > 10
        assert len(set(kept["keys"].tolist())) == 16 and len(kept["labels"]) == 16


def test_a_run_without_a_checkpoint_is_repeated_from_its_beginning(diverged, display):
    output, step = diverged
    before = {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()}
    result = replay(output, display)
    assert (result.first_step, result.step, result.is_repeated, result.same_batch) == (0, step, True, True)
    assert len(result.losses) == step + 1 and np.isfinite(result.losses[:-1]).all()
    logged = [event["loss"] for event in read_events(output / "metrics.jsonl") if event["event"] == "step"]
    assert list(result.losses[: len(logged)]) == pytest.approx(logged, rel=1e-6)
    first, last = result.weight_growth["conv1"]
    assert last > 1e10 * first
    assert {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()} == before


def test_the_finding_names_the_layer_and_the_weights(diverged, display):
    output, step = diverged
    (found,) = inspect_replay(output, display)
    assert found.id == "replay-diverged" and f"step {step} again" in found.what
    assert "The first output that is not finite is that of" in found.what
    assert any("conv1 from" in row for row in found.evidence)
    assert any(row.startswith("images whose loss is not finite: 16") for row in found.evidence)


def test_a_run_is_repeated_from_its_last_checkpoint(tmp_path, display):
    step = diverge(tmp_path / "run", "optimizer.lr=1.0", "train.checkpoint_minutes=0")
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").step == step
    result = replay(tmp_path / "run", display)
    assert (result.first_step, result.step) == (step, step) and result.is_repeated
    assert len(result.losses) == 1


def test_a_loss_that_is_finite_this_time_is_a_warning(diverged, display, monkeypatch):
    output, step = diverged
    found = replay(output, display)
    sound = replace(found, losses=(2.3,) * (step + 1), bad_images=())
    monkeypatch.setattr(replayed, "replay", lambda path, display: sound)
    (finding,) = inspect_replay(output, display)
    assert (finding.id, finding.severity) == ("replay-finite", "warning")
    assert f"the loss of step {step} is finite this time" in finding.what


def test_another_batch_than_the_kept_one_is_told(diverged, display):
    output, _ = diverged
    path = output / "diverged.npz"
    whole = path.read_bytes()
    with np.load(path) as kept:
        values = dict(kept)
    values["crops"] = 255 - values["crops"]
    np.savez(path, **values)
    try:
        (found,) = inspect_replay(output, display)
        assert any("not the one that diverged.npz holds" in row for row in found.evidence)
        path.write_bytes(b"not a zip file")
        with pytest.raises(UserError, match=r"diverged\.npz cannot be read"):
            replay(output, display)
    finally:
        path.write_bytes(whole)


def test_the_command_prints_it_and_refuses_what_did_not_diverge(diverged, tmp_path):
    output, _ = diverged
    done = CliRunner().invoke(app, ["doctor", str(output), "--replay", "--json"])
    assert done.exit_code == 1
    assert "replay-diverged" in [item["id"] for item in json.loads(done.stdout)["findings"]]
    refused = CliRunner().invoke(app, ["doctor", "digits", "--replay"])
    assert isinstance(refused.exception, UserError) and "name the run's folder" in str(refused.exception)
    text = (output / "metrics.jsonl").read_text()
    other = tmp_path / "sound"
    other.mkdir()
    (other / "metrics.jsonl").write_text("".join(line for line in text.splitlines(True) if "diverged" not in line))
    (other / "config.toml").write_bytes((output / "config.toml").read_bytes())
    with Progress("silent") as display, pytest.raises(UserError, match="nothing to replay"):
        replay(other, display)

"""The watch over the loss: when it speaks, when it does not, and that it changes nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import alexnet.training.run as run_module
from alexnet.config_io import from_toml_text, load_recipe, recipe_names
from alexnet.errors import RunError
from alexnet.evaluation.evaluator import evaluate
from alexnet.reproduce.record import read_runs
from alexnet.training import trainer as trainer_module
from alexnet.training.run import train
from alexnet.training.watch import LossWatch, describe_divergence, guessing_loss, patience_steps, watch_for

GUESSING = math.log(10)
RESULTS = Path(__file__).resolve().parents[3] / "results"


def observe_all(watch, losses, every=10):
    """The steps at which the watch spoke."""
    return [
        step
        for step, loss in zip(range(every, every * len(losses) + 1, every), losses, strict=True)
        if watch.observe(step, every, loss) is not None
    ]


def test_guessing_is_ln_c_for_equally_common_classes_and_less_otherwise():
    assert guessing_loss(np.arange(1000), 1000) == pytest.approx(math.log(1000))
    assert guessing_loss(np.arange(1000), 1000, label_smoothing=0.1) == pytest.approx(math.log(1000))
    shares = np.array([0.9, 0.1])
    labels = np.array([0] * 9 + [1])
    assert guessing_loss(labels, 2) == pytest.approx(-(shares * np.log(shares)).sum())
    # With smoothing the best that can be said of every image is the smoothed share of its class.
    smooth = 0.9 * shares + 0.05
    assert guessing_loss(labels, 2, 0.1) == pytest.approx(-(smooth * np.log(smooth)).sum())
    assert guessing_loss(np.array([0, 0, 1, 1]), 4) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("num_steps", "epochs_per_step", "expected"),
    [
        (910_000, 128 / 1_281_167, 5000),  # ImageNet
        (3_907, 128 / 50_000, 391),  # CIFAR-10
        (100_000, 128 / 10_000, 300),
        (360, 32 / 1437, 180),  # digits
        (50, 1.0, 100),
    ],
)
def test_patience_is_an_epoch_within_limits(num_steps, epochs_per_step, expected):
    assert patience_steps(num_steps, epochs_per_step) == expected


def test_a_loss_that_stays_is_told_once_when_patience_ends():
    assert observe_all(LossWatch(GUESSING, 100), [GUESSING + 0.01] * 40) == [100]


def test_a_loss_above_guessing_is_no_better():
    assert observe_all(LossWatch(GUESSING, 100), [3.0] * 20) == [100]


def test_a_loss_that_falls_is_left_alone():
    falling = [GUESSING * (1 - 0.004 * i) for i in range(40)]
    assert observe_all(LossWatch(GUESSING, 100), falling) == []


def test_a_collapse_back_to_guessing_is_told_again():
    losses = [GUESSING] * 15 + [1.0] * 15 + [GUESSING] * 15
    assert observe_all(LossWatch(GUESSING, 100), losses) == [100, 400]


def test_the_warm_up_does_not_count():
    assert observe_all(LossWatch(GUESSING, 100, start_step=50), [GUESSING] * 20) == [150]


def test_one_bad_stretch_after_learning_has_begun_is_no_alarm():
    assert observe_all(LossWatch(GUESSING, 100), [1.5] * 20 + [9.0] + [1.5] * 20) == []


@pytest.mark.parametrize("lines", [1, 7, 130])
def test_patience_holds_for_every_spacing_of_the_log(lines):
    spoke = observe_all(LossWatch(GUESSING, 100), [GUESSING] * 300, every=lines)
    assert spoke == [math.ceil(100 / lines) * lines]


def losses_of(run):
    """(step, steps since the one before, loss) of every logged step of a run."""
    steps = [event for event in run.events if event["event"] == "step"]
    return [
        (e["step"], e["step"] - p, e["loss"]) for e, p in zip(steps, [0, *(s["step"] for s in steps)], strict=False)
    ]


@pytest.mark.parametrize(
    ("record", "name", "num_train", "num_classes"),
    [
        ("2026-11-25_digits_2-core-epyc-avx512", "run", 1437, 10),
        ("2026-11-24_folder_2-core-epyc", "run", 32, 4),
        ("2026-11-24_cifar-quick_2-core-epyc", "seed-0", 50_000, 10),
        ("2026-11-24_cifar-19pct-trace_2-core-epyc", "seed-1", 50_000, 10),
    ],
)
def test_recorded_runs_pass_without_a_word(record, name, num_train, num_classes):
    run = read_runs(RESULTS / record)[name]
    losses = losses_of(run)
    recipe = from_toml_text(run.config)
    watch = watch_for(recipe, np.arange(num_train) % num_classes, num_classes, losses[-1][0])
    assert len(losses) > 4 and [item for item in losses if watch.observe(*item) is not None] == []


# ---------------------------------------------------------------- in a run

BASE = [
    "model.name=cifar_quick",
    "data.image_size=32",
    "augment.crop=center",
    "augment.flip=false",
    "augment.color_noise=0",
    "train.batch_size=2",
    "train.epochs=30",
    "data.max_train_images=8",
    "train.evaluate_every_epochs=1000",
    "evaluate.views=center",
    "runtime.precision=float32",
]
STUCK = ["optimizer.lr=1e-12"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """120 steps on eight drawn shapes; returns the folder. The report has tests of its own."""
    monkeypatch.setattr(run_module, "write_report", lambda folder: folder / "report.html")
    monkeypatch.setattr(trainer_module.Trainer, "evaluate", evaluate_nothing)

    def run(name, *overrides):
        train(from_toml_text("", [*BASE, *overrides]), "shapes:32", tmp_path / name, progress="plain")
        return tmp_path / name

    return run


def evaluate_nothing(trainer, views, title):
    """An evaluation of two images: these tests are about the training."""
    validation = trainer.validation
    first = type(validation)(validation.labels[:2], validation.keys[:2], 32, read=validation.square)
    return evaluate(
        [trainer.model],
        [trainer.preprocessing],
        first,
        classes=trainer.description["classes"],
        class_names=trainer.description["class_names"],
        views=views,
        batch_size=2,
        device=trainer.device,
        dtype=trainer.dtype,
    )


@pytest.fixture(autouse=True)
def _no_examples(monkeypatch):
    monkeypatch.setattr(run_module, "_save_examples", lambda *arguments: None)
    monkeypatch.setattr(run_module, "save_report_images", lambda *arguments: None)


def events(folder, kind):
    return [e for e in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if e["event"] == kind]


def test_a_stuck_run_says_so_with_its_cause_and_goes_on(run, capsys):
    folder = run("run", *STUCK)
    told = capsys.readouterr().err
    assert "Step 100: The loss has been 2.30" in told and "no better than guessing" in told
    assert "weights hardly move" in told and "raise optimizer.lr" in told
    assert [(e["step"], e["cause"]) for e in events(folder, "stuck")] == [(100, "lr-too-low")]
    assert events(folder, "step")[-1]["step"] == 120


def test_the_watch_changes_no_weight(run, monkeypatch):
    told = run("told", "optimizer.lr=1e-9")
    assert events(told, "stuck")
    monkeypatch.setattr(LossWatch, "observe", lambda *arguments: None)
    untold = run("untold", "optimizer.lr=1e-9")
    a, b = (
        torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model_state"] for folder in (told, untold)
    )
    assert not events(untold, "stuck") and all(torch.equal(a[name], b[name]) for name in a)


def test_on_request_a_stuck_run_saves_everything_and_ends(run, tmp_path):
    with pytest.raises(RunError, match=r"no better than guessing.*The likely cause: .*--on-stuck warn"):
        run("run", *STUCK, "train.on_stuck=stop")
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert last["step"] == 100 and last["training_state"] is not None
    assert [event["step"] for event in events(tmp_path / "run", "stop")] == [100]
    assert run("run", *STUCK, "train.on_stuck=warn")  # the same run goes on: the key is no part of the result
    assert events(tmp_path / "run", "step")[-1]["step"] == 120


def test_a_learning_run_hears_nothing(run, capsys):
    folder = run("run", "optimizer.lr=0.002")
    assert events(folder, "stuck") == [] and "guessing" not in capsys.readouterr().err


def test_divergence_leaves_an_event_and_tells_the_loss_before(run, tmp_path):
    with pytest.raises(RunError, match=r"diverged \(it .*learning rate was 1e\+30"):
        run("run", "optimizer.lr=1e30")
    assert events(tmp_path / "run", "diverged")[0]["lr"] == 1e30


def test_how_a_divergence_came_is_told():
    assert "rose from 2.3 to 90" in describe_divergence(5, [2.3, 4.0, 90.0], 0.1)
    assert "was 2.2 one step before" in describe_divergence(5, [2.3, 2.2], 0.1)
    assert "from the start" in describe_divergence(5, [], 0.1)


def test_no_recipe_is_watched_for_longer_than_it_runs():
    for name in recipe_names():
        recipe = load_recipe(name)
        epochs_per_step = recipe.train.batch_size / 1_281_167
        num_steps = math.ceil(recipe.train.epochs / epochs_per_step)
        assert patience_steps(num_steps, epochs_per_step) < num_steps

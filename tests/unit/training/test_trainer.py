"""The loop: when it evaluates, saves, drops the rate and stops."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

import alexnet.commands.evaluate as evaluate_command
import alexnet.training.run as run_module
import alexnet.training.trainer as trainer_module
from alexnet.config import DataConfig
from alexnet.config_io import from_toml_text
from alexnet.data import squares
from alexnet.data.prepare import Request, prepare_data_set
from alexnet.data.sources import open_source
from alexnet.errors import DivergedError, RunError, UserError
from alexnet.evaluation.evaluator import evaluate
from alexnet.models import ARCHITECTURES
from alexnet.models.architecture import AveragePool, Convolution
from alexnet.models.changes import changed_layers
from alexnet.reporting.metrics_log import read_events
from alexnet.reporting.progress import Progress
from alexnet.runtime.device import default_num_workers
from alexnet.training.checkpoint import load_checkpoint
from alexnet.training.run import train
from alexnet.training.trainer import Trainer

BASE = [
    "model.name=cifar_quick",
    "data.image_size=32",
    "augment.crop=center",
    "augment.flip=false",
    "augment.color_noise=0",
    "optimizer.lr=0.001",
    "train.batch_size=50",
    "train.epochs=2",
    "evaluate.views=center",
    "runtime.precision=float32",
    "logging.log_every_steps=1",
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """200 training and 100 validation shapes of 32 px as a folder: drawing them anew for every run takes longer."""
    root = tmp_path_factory.mktemp("shapes")
    source = open_source("shapes:32", DataConfig())
    for split, count in ((source.train, 200), (source.val, 100)):
        for index in range(count):
            folder = root / split.name / source.classes[split.labels[index]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.read(index)).save(folder / f"{index}.png")
    return root


@pytest.fixture
def run(shapes, monkeypatch):
    """Trains on the shapes; the report, which has tests of its own, is drawn only where asked."""

    def run(output, *overrides, report=False):
        with monkeypatch.context() as patch:
            if not report:
                patch.setattr(run_module, "write_report", lambda folder: folder / "report.html")
            return train(from_toml_text("", [*BASE, *overrides]), str(shapes), output, progress="silent")

    return run


def events(output, kind):
    return [event for event in read_events(output / "metrics.jsonl") if event["event"] == kind]


def test_a_run_leaves_everything_that_is_promised(run, tmp_path):
    summary = run(tmp_path / "run", report=True)
    names = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    promised = {"config.toml", "environment.json", "metrics.jsonl", "summary.json", "report.html", "data.json"}
    assert promised | {"checkpoints/last.pt", "checkpoints/best.pt"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert summary.finished and summary.values == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(events(tmp_path / "run", "step")) == summary.values["step"] == 8


@pytest.mark.parametrize(("every", "steps"), [(1, [4, 8]), (0.5, [2, 4, 6, 8]), (1.5, [6, 8]), (5, [8])])
def test_evaluations_come_when_asked_and_at_the_end(run, tmp_path, every, steps):
    run(tmp_path / "run", f"train.evaluate_every_epochs={every}")
    assert [event["step"] for event in events(tmp_path / "run", "evaluation")] == steps


def test_one_step_may_be_longer_than_the_data(run, tmp_path):
    run(tmp_path / "run", "data.max_train_images=20", "train.epochs=5")
    assert [event["step"] for event in events(tmp_path / "run", "evaluation")] == [1, 2]


def test_the_best_checkpoint_is_of_the_lowest_error(run, tmp_path):
    run(tmp_path / "run", "train.evaluate_every_epochs=0.25", "train.epochs=4", "optimizer.lr=0.003")
    evaluations = events(tmp_path / "run", "evaluation")
    lowest = min(evaluations, key=lambda event: (event["top1_error"], event["loss"]))
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["step"] == lowest["step"] and best["metrics"]["top1_error"] == lowest["top1_error"]
    assert best["training_state"] is None and best["selection"] == "best"
    assert [event["step"] for event in evaluations if event["is_best"]][-1] == lowest["step"]
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert last["selection"] == "last" and last["step"] == evaluations[-1]["step"]


def test_of_equal_errors_the_weights_with_the_lower_loss_are_kept(run, tmp_path, monkeypatch):
    history = iter([(0.3, 1.57), (0.3, 1.02), (0.3, 1.3), (0.4, 0.1)])
    measured = trainer_module.Trainer.evaluate

    def evaluate_by_history(trainer, views, title):
        report = measured(trainer, views, title)
        if title != "Validation":
            return report
        error, loss = next(history)
        return replace(report, top1_error=error, loss=loss)

    monkeypatch.setattr(trainer_module.Trainer, "evaluate", evaluate_by_history)
    run(tmp_path / "run", "train.evaluate_every_epochs=0.5")
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert (best["step"], best["metrics"]["loss"]) == (4, 1.02)
    assert [event["is_best"] for event in events(tmp_path / "run", "evaluation")] == [True, True, False, False]


def test_a_run_without_progress_stops_early_and_stays_stopped(run, tmp_path):
    settings = ["optimizer.lr=1e-12", "train.epochs=50", "train.early_stop_evaluations=3"]
    assert run(tmp_path / "run", *settings).values["step"] == 16  # the first evaluation and three no better
    (tmp_path / "run" / "summary.json").unlink()  # as if killed before the summary was written
    assert run(tmp_path / "run", *settings).values["step"] == 16


def test_a_run_stops_when_its_training_images_are_learned(run, tmp_path):
    settings = ["train.epochs=12", "optimizer.lr=0.003"]
    run(tmp_path / "all", *settings)
    whole = [event["train_top1_error"] for event in events(tmp_path / "all", "evaluation")]
    steps = [event["top1_error"] for event in events(tmp_path / "all", "step")]
    assert whole[0] == pytest.approx(sum(steps[:4]) / 4), "of the batches of one epoch, as the network saw them"
    target = sorted(whole)[len(whole) // 2]
    stop = next(index for index, error in enumerate(whole) if error <= target)
    summary = run(tmp_path / "some", *settings, f"train.stop_at_train_error={target}")
    assert summary.values["step"] == 4 * (stop + 1) < 48
    assert [event["train_top1_error"] for event in events(tmp_path / "some", "evaluation")] == whole[: stop + 1]


def test_a_run_continues_with_the_record_that_it_began_with(run, tmp_path, monkeypatch):
    """The record of a variant may change from version to version; a half-trained network keeps its own."""
    today = ARCHITECTURES["cifar_quick"]
    convolution = Convolution("conv3", 64, kernel=5, padding=2, bias=False)
    pool = AveragePool("pool2", size=3, stride=2, ceil_mode=True)
    record = replace(today, layers=changed_layers(today.layers, pool2=pool, conv3=convolution))
    update = Trainer.update

    def break_off(trainer, batch):
        if trainer.state.step == 4:
            raise KeyboardInterrupt
        return update(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setitem(ARCHITECTURES, "cifar_quick", record)
        run(tmp_path / "whole", "train.ema_decay=0.5")
        patch.setattr(Trainer, "update", break_off)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", "train.ema_decay=0.5", "train.checkpoint_minutes=0")
    run(tmp_path / "broken", "train.ema_decay=0.5", "train.checkpoint_minutes=0")
    whole, broken = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "broken"))
    assert broken.architecture == record != ARCHITECTURES["cifar_quick"]
    assert whole.step == broken.step == 8 and whole.model_state.keys() == broken.model_state.keys()
    assert all(torch.equal(weight, broken.model_state[name]) for name, weight in whole.model_state.items())


def test_the_plateau_rule_lowers_the_rate_of_the_run(run, tmp_path):
    run(
        tmp_path / "run",
        "optimizer.lr=1e-12",
        "schedule.name=plateau",
        "schedule.patience_epochs=1",
        "train.epochs=4",
    )
    rates = [event["lr"] for event in events(tmp_path / "run", "step")]
    assert rates[:8] == [1e-12] * 8
    assert rates[8:12] == pytest.approx([1e-13] * 4) and rates[12:] == pytest.approx([1e-14] * 4)


def test_divergence_is_told_with_the_step_and_the_remedy(run, tmp_path):
    with pytest.raises(RunError, match=r"not finite at step \d+.*optimizer\.lr"):
        run(tmp_path / "run", "optimizer.lr=1e30", "train.epochs=5")
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_an_update_that_breaks_the_weights_is_told_though_no_batch_comes_after_it(run, tmp_path):
    with pytest.raises(DivergedError, match="output is not finite"):
        run(tmp_path / "run", "optimizer.lr=1e30", "train.epochs=0.01", "schedule.warmup_epochs=0")
    assert [event["step"] for event in events(tmp_path / "run", "diverged")] == [1]
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_nothing_is_saved_after_a_loss_that_is_not_finite(run, tmp_path):
    settings = ["optimizer.lr=1e30", "train.epochs=5", "train.checkpoint_minutes=0", "logging.log_every_steps=1000"]
    with pytest.raises(RunError, match="not finite"):
        run(tmp_path / "run", *settings)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert saved["step"] == 1  # its loss was finite; those of the next steps were not


def test_a_failed_first_attempt_can_be_given_again_with_other_settings(run, tmp_path):
    with pytest.raises(RunError):
        run(tmp_path / "run", "optimizer.lr=1e30")
    assert run(tmp_path / "run").finished


def test_a_report_that_was_never_written_comes_with_the_next_call(run, tmp_path):
    run(tmp_path / "run", "train.epochs=0.5")
    assert not (tmp_path / "run" / "report.html").exists()  # the fixture leaves it out, as a kill would
    run(tmp_path / "run", "train.epochs=0.5", report=True)
    assert (tmp_path / "run" / "report.html").exists()


def test_damaged_statistics_are_computed_again(run, tmp_path):
    whole = run(tmp_path / "a", "train.epochs=1").values["loss"]
    run(tmp_path / "b", "train.epochs=1")
    (tmp_path / "b" / "summary.json").unlink()
    (tmp_path / "b" / "statistics.npz").write_bytes(b"PK torn")
    assert run(tmp_path / "b", "train.epochs=1").values["loss"] == pytest.approx(whole, rel=1e-6)


def test_a_damaged_checkpoint_is_named_with_the_remedy(run, tmp_path):
    run(tmp_path / "run", "train.epochs=1")
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"last\.pt is not a checkpoint.*delete it to start this run again"):
        run(tmp_path / "run", "train.epochs=1")


def test_a_lengthened_run_is_evaluated_as_often_as_it_would_have_been(run, tmp_path):
    run(tmp_path / "run", "train.epochs=2", "train.min_steps=32")
    assert [event["step"] for event in events(tmp_path / "run", "evaluation")] == [16, 32]


@pytest.mark.parametrize(("overrides", "workers"), [((), default_num_workers(False)), (("runtime.num_workers=3",), 3)])
def test_evaluations_decode_with_as_many_threads_as_training(run, shapes, tmp_path, monkeypatch, overrides, workers):
    seen = []

    def evaluate_and_note(*arguments, num_workers=2, **options):
        seen.append(num_workers)
        return evaluate(*arguments, num_workers=num_workers, **options)

    monkeypatch.setattr(trainer_module, "evaluate", evaluate_and_note)
    monkeypatch.setattr(evaluate_command, "evaluate_models", evaluate_and_note)
    run(tmp_path / "run", "train.epochs=0.25", "data.memory_limit_gb=0", *overrides)
    assert set(seen) == {workers}
    monkeypatch.setattr(squares, "free_memory_bytes", lambda: 0)
    evaluate_command.evaluate(tmp_path / "run", str(shapes))
    assert seen[-1] == workers and len(seen) == 3


def test_a_frozen_layer_does_not_change(run, tmp_path):
    run(tmp_path / "a", "optimizer.layers.conv1.lr_factor=0")
    run(tmp_path / "b", "optimizer.layers.conv1.lr_factor=0", "train.epochs=1")
    a, b = (torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["model_state"] for name in "ab")
    assert torch.equal(a["conv1.weight"], b["conv1.weight"])
    assert not torch.equal(a["conv2.weight"], b["conv2.weight"])


def test_seeds_give_other_weights_and_the_same_seed_the_same(run, tmp_path):
    def weights(name, *settings):
        run(tmp_path / name, "train.epochs=1", *settings)
        return torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["model_state"]["fc10.weight"]

    first = weights("a")
    assert torch.equal(first, weights("b"))
    assert not torch.equal(first, weights("c", "seed=1"))


def test_on_demand_images_train_the_same_network(run, tmp_path):
    run(tmp_path / "memory", "train.epochs=1")
    run(tmp_path / "demand", "train.epochs=1", "data.memory_limit_gb=0", "runtime.num_workers=3")
    memory, demand = (
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["model_state"]
        for name in ("memory", "demand")
    )
    assert all(torch.equal(memory[name], demand[name]) for name in memory)


def test_a_square_smaller_than_the_input_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(UserError, match=r"data\.image_size = 16"):
        run(tmp_path / "run", "data.image_size=16")
    assert not (tmp_path / "run").exists()


def test_too_few_outputs_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"model\.num_classes = 3.*10 classes"):
        run(tmp_path / "run", "model.num_classes=3")


def test_a_rate_for_an_unknown_layer_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(UserError, match=r"optimizer\.layers\.conv9.*conv1"):
        run(tmp_path / "run", "optimizer.layers.conv9.lr_factor=0")
    assert not (tmp_path / "run").exists()


def test_a_run_has_at_least_the_steps_that_are_asked_for(run, tmp_path):
    assert run(tmp_path / "run", "train.epochs=1", "train.min_steps=7").values["num_steps"] == 7


def test_a_schedule_for_an_unknown_layer_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"schedule\.layers\.conv9"):
        run(tmp_path / "run", "schedule.layers.conv9.name=constant")


def test_the_final_evaluation_is_of_the_weights_the_recipe_says(run, tmp_path):
    settings = ["train.evaluate_every_epochs=0.25", "train.epochs=4", "optimizer.lr=0.003"]
    best = run(tmp_path / "best", "evaluate.checkpoint=best", *settings).values
    assert best["top1_error"] == pytest.approx(best["best_center_error"], abs=0.006)
    last = run(tmp_path / "last", "evaluate.checkpoint=last", *settings).values
    assert last["step"] == last["num_steps"] and best["step"] <= last["step"]
    assert math.isclose(last["top1_error"], events(tmp_path / "last", "evaluation")[-1]["top1_error"], abs_tol=0.006)


def test_the_time_that_steps_wait_for_images_is_recorded(run, tmp_path):
    values = run(tmp_path / "run", "data.memory_limit_gb=0", "runtime.num_workers=1").values
    shares = [event["data_wait_share"] for event in events(tmp_path / "run", "step")]
    assert all(0 <= share <= 1 for share in shares) and 0 <= values["data_wait_share"] <= 1


def test_images_are_shuffled_in_windows_of_shards_alike_from_memory_and_from_the_disk(shapes, tmp_path, monkeypatch):
    with Progress("silent") as progress:
        request = Request(str(shapes), tmp_path / "set", image_size=32, encoding="raw", images_per_shard=20)
        prepare_data_set(request, progress)
    monkeypatch.setattr(run_module, "write_report", lambda folder: folder / "report.html")

    def loss(output, *settings):
        recipe = from_toml_text("", [*BASE, "train.epochs=1", *settings])
        return train(recipe, str(tmp_path / "set"), tmp_path / output, progress="silent").values["loss"]

    windowed = loss("a", "data.shuffle_window=2")
    assert loss("b", "data.shuffle_window=2", "data.memory_limit_gb=0") == windowed
    assert loss("c") != windowed

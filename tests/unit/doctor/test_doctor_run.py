"""Runs and checkpoints, sound and broken."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet.training.run as run_module
from alexnet.config import DataConfig
from alexnet.config_io import from_toml_text
from alexnet.data.sources import open_source
from alexnet.doctor import run as doctor_run
from alexnet.doctor.checkpoint import inspect_checkpoint, inspect_checkpoint_fit
from alexnet.doctor.data import DataFacts, inspect_data
from alexnet.doctor.examine import examine, sort_things
from alexnet.doctor.findings import is_healthy
from alexnet.doctor.run import inspect_run
from alexnet.training.checkpoint import load_checkpoint, save_checkpoint
from alexnet.training.run import train
from alexnet.training.watch import guessing_loss

RECIPE = [
    "model.name=cifar_quick",
    "data.image_size=32",
    "augment.crop=center",
    "augment.color_noise=0",
    "optimizer.lr=0.001",
    "train.batch_size=16",
    "train.epochs=40",
    "train.evaluate_every_epochs=10",
    "evaluate.views=center",
    "runtime.precision=float32",
    "logging.log_every_steps=5",
]


@pytest.fixture(scope="module")
def light_and_dark(tmp_path_factory):
    """Two classes that a network tells apart within a hundred steps: dark and light noise."""
    root = tmp_path_factory.mktemp("light-and-dark")
    seeds = iter(range(1000))
    for split, count in (("train", 24), ("val", 12)):
        for name, level in (("dark", 0), ("light", 100)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng(next(seeds)).integers(0, 156, (32, 32, 3)) + level
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def good_run(light_and_dark, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "good"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "write_report", lambda folder: folder / "report.html")
        train(from_toml_text("", RECIPE), str(light_and_dark), output, progress="silent")
    # How long so small a step waits for its images is chance; it is set where it matters.
    change_events(output, lambda event: {key: value for key, value in event.items() if key != "data_wait_share"})
    return output


@pytest.fixture
def run(good_run, tmp_path):
    """A copy of the good run, to be broken."""
    return shutil.copytree(good_run, tmp_path / "run")


@pytest.fixture
def facts(light_and_dark):
    return inspect_data(str(light_and_dark), DataConfig(), full=False)[0]


def change_events(run, change):
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = [event for event in map(change, events) if event is not None]
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def change_checkpoint(run, **changes):
    path = run / "checkpoints" / "best.pt"
    save_checkpoint(path, replace(load_checkpoint(path), **changes))
    return path


# ---------------------------------------------------------------- runs


def test_a_good_run_is_sound_with_its_data_too(good_run, light_and_dark):
    assert examine(sort_things([str(good_run)])) == []
    findings = examine(sort_things([str(good_run), str(light_and_dark)]))
    assert is_healthy(findings) and {item.id for item in findings} == {"small-validation"}


def test_a_stopped_run_and_a_killed_one_are_told_apart(run, ids):
    (run / "summary.json").unlink()
    change_events(run, lambda event: None if event["event"] == "end" else event)
    assert ids(inspect_run(run)[1]) == {"run-unfinished": "warning"}
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"event": "stop", "step": 120}) + "\n")
    assert ids(inspect_run(run)[1]) == {"run-interrupted": "note"}


def test_a_run_that_is_going_on_is_no_dead_one(run, ids):
    import fcntl

    (run / "summary.json").unlink()
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ids(inspect_run(run)[1]) == {"run-active": "note"}


def test_a_cut_log_and_a_full_disk_are_named(run, ids, monkeypatch):
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"event": "st')
    (run / "summary.json").unlink()
    monkeypatch.setattr(doctor_run.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**4))
    found = ids(inspect_run(run)[1])
    assert found["torn-log"] == "warning" and found["disk-nearly-full"] == "problem"


@pytest.mark.parametrize("event", ["step", "diverged"])
def test_a_loss_that_is_not_finite_is_named_with_the_losses_before(run, event):
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"event": event, "step": 125, "loss": None}) + "\n")
    (finding,) = [item for item in inspect_run(run)[1] if item.id == "diverged"]
    assert "step 125" in finding.what and "the losses before" in finding.evidence[0]


def flat_losses(event):
    return {**event, "loss": math.log(2) + 0.001, "top1_error": 0.5} if event["event"] == "step" else event


def test_a_loss_at_ln_c_is_explained_from_the_last_checkpoint(run):
    path = run / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(path)
    state = {**checkpoint.model_state, "conv2.bias": torch.full((32,), -1e6)}
    save_checkpoint(path, replace(checkpoint, model_state=state))
    change_events(run, flat_losses)
    (finding,) = [item for item in inspect_run(run)[1] if item.id == "stuck"]
    assert "ln 2 = 0.6931" in finding.what and "100% of relu2 is zero" in finding.what
    assert any(row.startswith("relu2: RMS 0,") for row in finding.evidence) and "lower optimizer.lr" in finding.remedy


def test_a_loss_at_ln_c_without_checkpoint_is_named_all_the_same(run):
    (run / "checkpoints" / "last.pt").unlink()
    change_events(run, flat_losses)
    (finding,) = [item for item in inspect_run(run)[1] if item.id == "stuck"]
    assert "not there to look into" in finding.what


def test_a_loss_of_unequal_classes_is_stuck_below_ln_c(run, light_and_dark, tmp_path):
    uneven = shutil.copytree(light_and_dark, tmp_path / "uneven")
    for path in sorted((uneven / "train" / "dark").iterdir())[4:]:
        path.unlink()
    source = open_source(str(uneven), DataConfig())
    entropy = guessing_loss(source.train.labels, 2)
    assert entropy < 0.9 * math.log(2)
    record = json.loads((run / "data.json").read_text())
    record |= {"source": str(uneven), "fingerprint": source.fingerprint, "num_train": len(source.train)}
    (run / "data.json").write_text(json.dumps(record))
    change_events(run, lambda event: {**event, "loss": entropy} if event["event"] == "step" else event)
    (finding,) = [item for item in inspect_run(run)[1] if item.id == "stuck"]
    assert f"({entropy:.4f} for these classes; ln 2 = 0.6931)" in finding.what


def test_a_plateau_that_was_left_is_no_finding(run, ids):
    change_events(run, lambda event: flat_losses(event) if event["step"] <= 100 else event)
    assert "stuck" not in ids(inspect_run(run)[1])


def test_a_validation_error_at_chance_is_named(run, ids):
    change_events(run, lambda event: {**event, "top1_error": 0.5} if event["event"] == "evaluation" else event)
    assert ids(inspect_run(run)[1]) == {"validation-at-chance": "problem"}


def test_plain_overfitting_is_a_note(run, ids):
    def overfit(event):
        if event["event"] == "step":
            return {**event, "loss": 0.01, "top1_error": 0.0}
        return {**event, "top1_error": 0.2} if event["event"] == "evaluation" else event

    change_events(run, overfit)
    assert ids(inspect_run(run)[1]) == {"overfits": "note"}


@pytest.mark.parametrize(("share", "expected"), [(0.6, "loader-bound"), (0.01, "compute-bound")])
def test_waiting_for_data_is_read_from_the_log(run, ids, share, expected):
    change_events(run, lambda event: {**event, "data_wait_share": share} if event["event"] == "step" else event)
    assert list(ids(inspect_run(run)[1])) == [expected]


def test_a_run_that_slowed_down_is_noted(run, ids):
    def slow(event):
        late = event["event"] == "step" and event["step"] > 100
        if event["event"] != "step":
            return event
        return {
            **event,
            "images_per_second": 10.0 if late else 1000.0,
            "seconds": 1.0 * event["step"] * (8 if late else 1),
        }

    change_events(run, slow)
    assert ids(inspect_run(run)[1]) == {"slowed-down": "note"}


def test_data_that_changed_since_is_named(run, light_and_dark, ids):
    record = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**record, "fingerprint": "0" * 32}))
    assert ids(inspect_run(run)[1]) == {"data-changed": "warning"}
    (run / "data.json").write_text(json.dumps({**record, "source": str(run / "gone")}))
    assert ids(inspect_run(run)[1]) == {"data-changed": "note"}


def test_a_folder_without_a_log_is_no_run(run, ids):
    (run / "metrics.jsonl").unlink()
    assert ids(inspect_run(run)[1])["not-a-run"] == "problem"


# ---------------------------------------------------------------- checkpoints


def test_files_that_are_no_checkpoints_are_told_apart(run, ids, tmp_path):
    path = run / "checkpoints" / "best.pt"
    whole = path.read_bytes()
    other = tmp_path / "other.pt"
    torch.save({"conv1.weight": torch.zeros(1)}, other)
    version = tmp_path / "version.pt"
    torch.save({**torch.load(path, weights_only=True), "format_version": 99}, version)
    incomplete = tmp_path / "incomplete.pt"
    torch.save({k: v for k, v in torch.load(path, weights_only=True).items() if k != "classes"}, incomplete)
    cases = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "png": b"\x89PNG"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)

    def id_of(path):
        checkpoint, (finding,) = inspect_checkpoint(path)
        assert checkpoint is None and finding.severity == "problem"
        return finding.id

    assert [id_of(tmp_path / name) for name in cases] == [
        "checkpoint-damaged", "checkpoint-damaged", "not-a-checkpoint", "not-a-checkpoint",
    ]  # fmt: skip
    assert id_of(other) == "not-a-checkpoint" and id_of(version) == "checkpoint-version"
    assert id_of(incomplete) == "checkpoint-damaged" and id_of(tmp_path) == "not-a-checkpoint"


def test_a_wrong_scale_or_channel_order_is_named(run):
    preprocessing = load_checkpoint(run).preprocessing
    for change, words in (
        ({"input_scale": "unit"}, "input_scale = unit, but cifar_quick is meant for pixels"),
        ({"channel_order": "bgr"}, "channel_order = bgr"),
        ({"mean_image": preprocessing.mean_image / 255}, "it should be of 0-255 pixels"),
    ):
        path = change_checkpoint(run, preprocessing=replace(preprocessing, **change))
        (finding,) = inspect_checkpoint(path)[1]
        assert finding.id == "input-scale" and words in finding.what


def test_sizes_weights_and_classes_that_do_not_belong_together_are_named(run, ids):
    checkpoint = load_checkpoint(run)
    wrong = replace(checkpoint.preprocessing, crop_size=checkpoint.image_size - 2)
    assert ids(inspect_checkpoint(change_checkpoint(run, preprocessing=wrong))[1]) == {"preprocessing-sizes": "problem"}
    broken = {**checkpoint.model_state, "conv1.weight": checkpoint.model_state["conv1.weight"] * math.nan}
    path = change_checkpoint(run, preprocessing=checkpoint.preprocessing, model_state=broken)
    (finding,) = inspect_checkpoint(path)[1]
    assert finding.id == "weights-not-finite" and finding.evidence == ("conv1.weight",)
    without = {name: tensor for name, tensor in checkpoint.model_state.items() if name != "conv1.bias"}
    path = change_checkpoint(run, model_state=without)
    assert ids(inspect_checkpoint(path)[1]) == {"weights-do-not-fit": "problem"}


def test_sizes_and_classes_that_cannot_be_read_are_named(run, tmp_path):
    checkpoint = load_checkpoint(run)
    small = replace(checkpoint.preprocessing, mean_image=checkpoint.preprocessing.mean_image[:5, :5])
    for changed, words in (
        (replace(checkpoint, preprocessing=small), "with a mean of (5, 5, 3)"),
        (replace(checkpoint, classes=("dark",)), "classes are not"),
    ):
        save_checkpoint(tmp_path / "changed.pt", changed)
        (finding,) = inspect_checkpoint(tmp_path / "changed.pt")[1]
        assert finding.id == "checkpoint-damaged" and words in finding.what


def test_a_checkpoint_that_only_guesses_is_named(run, ids):
    path = change_checkpoint(run, metrics={"top1_error": 0.5, "views": "center", "num_images": 24, "top5_error": 0.0})
    assert ids(inspect_checkpoint(path)[1]) == {"untrained": "warning"}


# ---------------------------------------------------------------- checkpoints with data


def test_a_checkpoint_fits_its_own_data(good_run, facts):
    assert inspect_checkpoint_fit("it", load_checkpoint(good_run), facts) == []


def test_classes_that_do_not_fit_are_named(good_run, facts):
    checkpoint = load_checkpoint(good_run)

    def found(**changes):
        return inspect_checkpoint_fit("it", checkpoint, replace(facts, **changes))[0]

    numbers = found(classes=("1", "2"))
    assert numbers.id == "unknown-classes" and "devkit ids" in numbers.evidence[2]
    order = found(classes=("light", "dark"))
    assert order.id == "class-order" and order.evidence[0] == "light: 1 in the checkpoint, 0 in the data"
    assert found(classes=("dark",), source=None).id == "part-of-the-classes"
    names = inspect_checkpoint_fit(
        "it", replace(checkpoint, classes=("n01", "n02"), class_names=("dark", "light")), facts
    )
    assert names[0].id == "unknown-classes" and "rename the folders" in names[0].evidence[-1]


def test_a_prepared_size_that_does_not_match_is_named(good_run, facts):
    prepared = DataFacts("prepared", None, facts.classes, facts.counts, image_size=64)
    (finding,) = inspect_checkpoint_fit("it", load_checkpoint(good_run), prepared)
    assert finding.id == "image-size-mismatch" and "64 pixels; the checkpoint was trained with 32" in finding.what


def test_swapped_labels_are_seen_by_the_error(good_run, facts, ids):
    checkpoint = load_checkpoint(good_run)
    assert checkpoint.metrics["top1_error"] < 0.1
    swapped = replace(checkpoint, classes=checkpoint.classes[::-1])
    found = ids(inspect_checkpoint_fit("it", swapped, facts))
    assert found == {"class-order": "warning", "worse-than-recorded": "warning"}


def test_images_of_another_kind_are_seen_by_their_colour(good_run, make_data, ids):
    data = make_data({"train/dark": 6, "train/light": 6, "val/dark": 6, "val/light": 6})
    for path in data.rglob("*.png"):
        Image.new("RGB", (32, 32), (250, 250, 0)).save(path)
    facts = inspect_data(str(data), DataConfig(), full=False)[0]
    assert "other-images" in ids(inspect_checkpoint_fit("it", load_checkpoint(good_run), facts))

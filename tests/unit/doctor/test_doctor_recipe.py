"""Recipes that are off, alone and for a data set; and every recipe of the package, which is not."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from alexnet.config import DataConfig
from alexnet.config_io import from_toml_text, load_recipe, recipe_names
from alexnet.doctor import activations, recipe
from alexnet.doctor.activations import inspect_start
from alexnet.doctor.data import inspect_data
from alexnet.doctor.findings import is_healthy
from alexnet.doctor.recipe import inspect_fit, inspect_recipe
from alexnet.models import build_network
from alexnet.training.memory import step_memory


@pytest.fixture(autouse=True)
def _enough_memory(monkeypatch):
    """The machine of the test has what the published recipes need; a test may say otherwise."""
    monkeypatch.setattr(recipe, "available_bytes", lambda device: 16 * 2**30)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_is_sound(name, ids, monkeypatch):
    if name.startswith("bn-"):  # a batch for many machines: 8.8 MB for each of 32,768 images in float32
        monkeypatch.setattr(recipe, "available_bytes", lambda device: 512 * 2**30)
    _, findings = inspect_recipe(name, load_recipe(name))
    assert is_healthy(findings) and set(ids(findings)) <= {"literal-initialization"}


CIFAR = ["model.name=cifar_quick", "data.image_size=32", "augment.crop=center", "optimizer.lr=0.001"]


@pytest.mark.parametrize(
    ("overrides", "expected", "words"),
    [
        (["optimizer.lr=0.1"], "lr-too-high", "10 times the reference, 0.01"),
        (["optimizer.lr=0.1", "train.batch_size=256"], "lr-too-high", "5 times the reference, 0.02"),
        (["optimizer.lr=1e-4"], "lr-too-low", "1/100 of the reference"),
        (["optimizer.momentum=0.99"], "lr-too-high", "with momentum 0.99"),
        ([*CIFAR, "optimizer.lr=0.01"], "lr-too-high", "reference, 0.001"),
        (["train.batch_size=1280", "optimizer.lr=0.1"], "large-batch", "1280 images"),
        (["train.batch_size=65536", "optimizer.lr=1", "schedule.warmup_epochs=5"], "batch-too-large", "16.0 GB"),
        (["data.image_size=200"], "image-smaller-than-crop", "200 is smaller than the input of as_run, 224"),
        (["model.name=cifar_quick", "optimizer.lr=0.001"], "crop-much-smaller", "32 pixels of squares of 256: 2%"),
        (["data.image_size=224"], "no-room-for-crops", "both have 224"),
        (["schedule.name=steps", "schedule.milestones=[95]", "schedule.factors=[0.1]"], "after-the-end", "epoch 90"),
        (["schedule.layers.conv1.freeze_epoch=90"], "after-the-end", "epoch 90"),
        (["augment.color_noise_until_epoch=100"], "after-the-end", "epoch 90"),
        (["schedule.warmup_epochs=90"], "after-the-end", "epoch 90"),
        (["schedule.name=plateau", "schedule.patience_epochs=100"], "patience-too-long", "after 100 evaluations"),
        (["schedule.name=plateau", "train.early_stop_evaluations=2"], "stops-before-drop", "stops after 2"),
        (["schedule.freeze_epoch=0"], "nothing-learns", "every layer is 0"),
        (["augment.color_noise=0.0004"], "color-noise-scale", "as if pixels were 0 to 1"),
        (["augment.color_noise=25.5"], "color-noise-scale", "more noise than colour"),
        (["model.name=torchvision", "augment.color_noise_divisor=1.1"], "divisor-ignored", "no effect in torchvision"),
        (["model.name=bn", "train.micro_batch_size=32"], "micro-batch-norm", "micro-batch of 32"),
        (["optimizer.layers.conv9.lr_factor=0.1"], "unknown-layer", "optimizer.layers.conv9"),
        (['schedule.bias={layers={conv9={name="constant"}}}'], "unknown-layer", "schedule.bias.layers.conv9"),
        (["model.name=bn", 'schedule.bias={layers={conv1={freeze_epoch=9}}}'], "unknown-layer", "no biases there"),
        (['schedule.bias={layers={conv1={freeze_epoch=99}}}'], "after-the-end", "epoch 90"),
        (["model.image_size=30"], "recipe-refused", "too small"),
        ([*CIFAR, "model.initialization=paper"], "recipe-refused", "says nothing about the layer"),
        (["runtime.device=cuda:99"], "device-missing", "cuda:99"),
        (["model.initialization=paper"], "literal-initialization", "N(0, 0.01)"),
    ],
)  # fmt: skip
def test_what_is_off_in_a_recipe_is_named(overrides, expected, words):
    _, findings = inspect_recipe("mine", from_toml_text("", overrides))
    found = {item.id: item for item in findings}
    assert expected in found, found
    assert words in found[expected].what
    assert set(found) <= {expected, "after-the-end"}


def test_bfloat16_on_a_machine_that_is_slow_at_it_is_named(monkeypatch, ids):
    wanted = from_toml_text("", ["runtime.precision=bfloat16"])
    for fast in (True, False):
        monkeypatch.setattr(recipe, "has_fast_bfloat16", lambda device, fast=fast: fast)
        assert ("slow-bfloat16" in ids(inspect_recipe("mine", wanted)[1])) is not fast
        assert inspect_recipe("mine", wanted, to_run_here=False)[1] == []  # a finished run may be from elsewhere


def test_the_micro_batch_that_is_advised_fits(monkeypatch):
    large = ["train.batch_size=16384", "schedule.warmup_epochs=5", "optimizer.lr=0.1"]
    (finding,) = inspect_recipe("mine", from_toml_text("", large))[1]
    advised = int(finding.remedy.split("micro_batch_size=")[1].split(":")[0])
    fitting = from_toml_text("", [*large, f"train.micro_batch_size={advised}"])
    assert finding.id == "batch-too-large" and advised >= 128 and inspect_recipe("mine", fitting)[1] == []


def test_where_not_even_one_image_fits_no_micro_batch_is_advised(monkeypatch):
    monkeypatch.setattr(recipe, "available_bytes", lambda device: 2**28)
    (finding,) = inspect_recipe("mine", from_toml_text("", []))[1]
    assert finding.id == "batch-too-large" and "not even one image" in finding.remedy


def test_the_estimate_of_memory_counts_what_is_kept_and_weights():
    model = build_network("cifar_quick", 10)
    memory = step_memory(from_toml_text("", [*CIFAR, "train.batch_size=64"]), model, torch.float32)
    with torch.no_grad():
        activations = model.activations(torch.zeros(1, 3, 32, 32))
    inner = {"pool1"}  # with relu1 after it one block, of which only the end is written
    assert inner < set(activations) and any(set(stage.names) == {"pool1", "relu1"} for stage in model.stages())
    outputs = [value[0].numel() for name, value in activations.items() if name not in inner]
    assert memory.per_image == 4 * (sum(outputs) + 2 * max(outputs) + 3 * 32 * 32)
    assert memory.weights == 12 * sum(parameter.numel() for parameter in model.parameters()) and memory.images == 64


# ---------------------------------------------------------------- with data


@pytest.fixture
def facts(make_data, sound):
    return inspect_data(str(make_data(sound)), DataConfig(), full=False)[0]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.num_classes=10", "train.min_steps=300", "train.batch_size=16"], "num-classes-mismatch"),
        (["train.batch_size=64", "train.min_steps=300"], "batch-larger-than-data"),
        (["train.epochs=2", "train.batch_size=16"], "too-few-steps"),
        (["train.min_steps=300", "train.batch_size=32", "train.ema_decay=0.999"], "ema-too-long"),
    ],
)
def test_what_does_not_fit_the_data_is_named(facts, overrides, expected, ids):
    assert list(ids(inspect_fit("mine", from_toml_text("", overrides), facts))) == [expected]


def test_a_fitting_recipe_is_sound(facts):
    assert inspect_fit("mine", from_toml_text("", ["train.min_steps=300", "train.batch_size=16"]), facts) == []


def test_prepared_squares_of_another_size_are_named(facts, ids):
    prepared = replace(facts, image_size=64)
    wanted = from_toml_text("", ["train.min_steps=300", "train.batch_size=16"])
    assert ids(inspect_fit("mine", wanted, prepared)) == {"prepared-size": "warning"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (CIFAR, "signals"),
        ([*CIFAR, "optimizer.lr=1e-9"], "predicted-to-stall"),
        (["model.initialization=paper"], "predicted-to-stall"),
    ],
)
def test_a_stall_is_predicted_from_a_few_images(facts, overrides, expected, ids):
    wanted = from_toml_text("", overrides)
    model, _ = inspect_recipe("mine", wanted, 2)
    findings = inspect_start("mine", wanted, model, facts)
    assert expected in ids(findings)
    (signal,) = [item for item in findings if item.id == expected]
    assert signal.evidence[0].startswith("input: RMS") and any(row.startswith("conv1: RMS") for row in signal.evidence)


def test_all_but_uniform_images_are_seen_by_their_scale(tmp_path, ids):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(8):
            Image.new("RGB", (32 + index, 32), (128, 128, 128)).save(tmp_path / name / f"{index}.png")
    grey = inspect_data(str(tmp_path), DataConfig(), full=False)[0]
    wanted = from_toml_text("", CIFAR)
    model, _ = inspect_recipe("mine", wanted, 2)
    findings = inspect_start("mine", wanted, model, grey)
    assert ids(findings)["predicted-to-stall"] == "warning" and "RMS of 0," in findings[-1].what


@pytest.mark.parametrize(("memory", "expected"), [("0", "loader-bound"), ("1", None)])
def test_slow_decoding_is_named_where_images_do_not_fit_in_memory(facts, ids, monkeypatch, memory, expected):
    monkeypatch.setattr(activations, "read_squares", slowly(activations.read_squares))
    wanted = from_toml_text("", [*CIFAR, f"data.memory_limit_gb={memory}", "runtime.num_workers=1"])
    model, _ = inspect_recipe("mine", wanted, 2)
    found = ids(inspect_start("mine", wanted, model, facts))
    assert ("loader-bound" in found) is (expected is not None) and "compute-bound" not in found


def slowly(read):
    return lambda *arguments: read(*arguments)._replace(images_per_second=0.5)


def test_small_images_are_noted(facts, ids):
    wanted = from_toml_text("", ["model.name=cifar_quick", "data.image_size=200", "optimizer.lr=0.001"])
    model, _ = inspect_recipe("mine", wanted, 2)
    assert ids(inspect_start("mine", wanted, model, facts))["images-enlarged"] == "note"

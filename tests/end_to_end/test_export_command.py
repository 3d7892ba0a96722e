"""`alexnet export` as a person types it: what it prints, what it refuses and how."""

import json

import numpy as np
import pytest
from export_stand_ins import small_checkpoint
from PIL import Image

from alexnet.exporting import onnx_file
from alexnet.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "net.pt"
    save_checkpoint(path, small_checkpoint("cifar_18pct"))
    return path


@pytest.fixture
def export(alexnet, network):
    """Runs the command in this process on `network`, and returns its exit code and what it printed."""
    return lambda *arguments, checkpoint=network: alexnet("export", checkpoint, *arguments)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of noise, of the classes that the network knows; one file is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", 10)):
        for label in range(7):
            (folder / split / f"n{label:02d}").mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"n{label:02d}" / f"{number}.png")
    return folder


def test_the_error_of_network_and_file_on_the_same_images(export, photos, tmp_path):
    target = tmp_path / "new" / "net.onnx"
    outcome = export("--output", target, "--weights", "int8", "--data", photos, "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["output"] == str(target) and record["num_bytes"] == target.stat().st_size
    assert record["format"] == "onnx" and record["weights"] == "int8"
    assert record["verification"]["images"] == f"64 images of {photos}"
    assert record["verification"]["batch_sizes"] == [1, 3, 64]
    loss = record["loss"]
    assert (loss["num_images"], loss["views"], loss["split"]) == (70, "center", "val")
    assert 0.5 < loss["network"]["top1_error"] <= 1 and 0.5 < loss["file"]["top1_error"] <= 1
    assert 0 < loss["largest_difference"] < 0.5 and loss["same_first_guess"] > 0.8
    assert "Evaluating the file: 70 images" in outcome.err


def test_what_a_person_reads(export, photos, tmp_path):
    outcome = export("--output", tmp_path / "net.pt2", "--weights", "float16", "--logits", "--images", photos / "val")
    assert outcome.code == 0, outcome.err
    first, *rest = outcome.out.splitlines()
    size = (tmp_path / "net.pt2").stat().st_size
    assert first == f"{tmp_path / 'net.pt2'}: pt2, weights in float16, {size:,} bytes"
    text = " ".join(rest)
    assert f"in batches of 1, 3, 64 on 64 images of {photos / 'val'}" in text
    assert "of a probability" in text and "of a logit (relative)" in text
    assert "What float16 costs in accuracy was not measured; --data measures it." in text


def test_a_file_that_is_too_different_is_a_failed_run_and_not_kept(export, tmp_path):
    outcome = export("--output", tmp_path / "net.onnx", "--tolerance", "1e-12", "--quiet")
    assert outcome.code == 1 and outcome.out == ""
    assert outcome.err.startswith("error: the exported file does not compute what the network does")
    assert outcome.err.count("\n") == 1 and "--tolerance is 1e-12" in outcome.err
    assert list(tmp_path.iterdir()) == []


def refused(outcome, *parts):
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("error: ") and "Traceback" not in outcome.err
    assert not [part for part in parts if part not in outcome.err], outcome.err


def test_mistakes_are_told_in_one_message(export, network, photos, tmp_path):
    target = tmp_path / "net.onnx"
    refused(export("--output", tmp_path / "net"), "does not say which format", "onnx, pt2")
    refused(export("--output", target, "--format", "onxx"), "did you mean 'onnx'?")
    refused(export("--output", target, "--weights", "int4"), "float32, float16, int8, not 'int4'")
    refused(export("--output", tmp_path, "--format", "onnx"), "is a folder")
    refused(export("--output", network, "--format", "pt2"), "is the checkpoint itself")
    refused(export("--output", target, checkpoint=tmp_path / "none.pt"), "There is no checkpoint")
    refused(export("--output", target, "--data", "shapes"), "the network does not know the class")
    refused(export("--output", target, "--data", photos, "--split", "test"), "train or val, not 'test'")
    refused(export("--output", target, "--images", tmp_path / "none.jpg"), "--images", "none.jpg")
    assert not target.exists()


def test_missing_packages_are_named_with_the_remedy(export, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else object())
    refused(
        export("--output", tmp_path / "net.onnx"), "the format onnx needs onnxscript; pip install 'alexnet[export]'"
    )

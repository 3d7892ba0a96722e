"""`alexnet import` as a person types it, and what the other commands do with the checkpoint that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_files import net_of, write
from small_networks import small

from alexnet import create_model
from alexnet.config import DataConfig
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.sources import open_source
from alexnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_imported_weights_do_what_the_checkpoint_they_are_of_does(alexnet, tmp_path: Path) -> None:
    """A checkpoint and its weights alone, with the classes and the mean in files, evaluate to the same record."""
    source = open_source("shapes:32", DataConfig())
    model = create_model("cifar_quick", len(source.classes), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # the initial weights are too small to tell images apart
    mean = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0)) * 255
    checkpoint = Checkpoint(
        architecture=model.architecture,
        num_classes=model.num_classes,
        image_size=32,
        classes=tuple(source.classes),
        class_names=tuple(source.class_names),
        preprocessing=Preprocessing(32, 32, "pixels", "rgb", "at_crop", mean),
        recipe={"data": {"image_size": 32}, "evaluate": {"views": "center"}},
        data="shapes:32",
        step=1,
        epoch=1.0,
        metrics={},
        model_state=dict(model.state_dict()),
        training_state=None,
        environment={},
    )
    save_checkpoint(tmp_path / "whole.pt", checkpoint)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, "weights.pth")
    np.save("mean.npy", mean.permute(2, 0, 1).numpy())
    Path("names.txt").write_text("".join(f"{name}\n" for name in source.classes))

    done = alexnet("import", "weights.pth", "--mean", "mean.npy", "--classes", "names.txt", "--output", "mine.pt")
    assert done.code == 0, done.err
    assert "conv1.weight  module.conv1.weight  32 x 3 x 5 x 5" in done.out
    assert "cifar_quick: The 80-second net" in done.out and done.out.endswith("Checkpoint: mine.pt\n")
    assert "note:" not in done.out, "everything was said"
    records = [
        json.loads(alexnet("evaluate", name, "--data", "shapes:32", "--json", "--quiet").out)
        for name in ("whole.pt", "mine.pt")
    ]
    for key in ("loss", "top1_error", "num_images", "views", "confusion"):
        assert records[0][key] == records[1][key], key
    for name, default in (("weights.pth", "weights.pt"), ("best.pth.tar", "best.pt"), ("best.pt", "best-imported.pt")):
        Path(name).write_bytes((tmp_path / "weights.pth").read_bytes())
        assert f"Checkpoint: {default}" in alexnet("import", name).out
    refused = alexnet("evaluate", "mine.pt")
    assert refused.code == 2 and "imported, and does not say on which images" in refused.err
    information = alexnet("info", "mine.pt").out
    assert "imported        weights.pth (a PyTorch file with this package's names, sha256 " in information
    assert "epoch" not in information
    assert "untrained" not in alexnet("doctor", "mine.pt").out


def test_an_exported_safetensors_file_is_imported_as_what_it_was(alexnet, tmp_path: Path) -> None:
    write(tmp_path / "net.caffemodel", net_of(create_model(small("caffe"), 5, seed=1)))
    assert alexnet("import", "net.caffemodel", "--mean", "104,117,123").code == 0
    done = alexnet("export", "net.pt", "--output", "net.safetensors")
    assert done.code == 0 and "net.safetensors: safetensors, weights in float32" in done.out, done.err
    assert alexnet("import", "net.safetensors", "--output", "again.pt").code == 0
    first, second = load_checkpoint("net.pt"), load_checkpoint("again.pt")
    assert first.architecture == second.architecture and first.environment == second.environment
    assert all(torch.equal(second.model_state[name], value) for name, value in first.model_state.items())
    refused = alexnet("export", "net.pt", "--output", "net.pth")
    assert refused.code == 2 and "torchvision has no caffe: its alexnet is the network of 2014" in refused.err
    refused = alexnet("export", "net.pt", "--output", "n.safetensors", "--weights", "int8")
    assert refused.code == 2 and "--weights is nothing for the format safetensors" in refused.err
    assert not (tmp_path / "net.pth").exists() and not (tmp_path / "n.safetensors").exists()


def test_the_command_says_what_it_found_and_assumed(alexnet, tmp_path: Path) -> None:
    write(tmp_path / "net.caffemodel", net_of(create_model(small("caffenet"), 5, seed=1)))
    done = alexnet("import", "net.caffemodel")
    assert done.code == 0 and done.err == ""
    assert "caffenet: Caffe's bvlc_reference_caffenet" in done.out and "Changed, as net.caffemodel has it" in done.out
    assert "shorter side 256, centre crop 227, BGR, 0-255 minus the mean (122.679, 116.669, 104.007)" in done.out
    assert done.out.count("note: ") == 3 and "Checkpoint: net.pt" in done.out
    assert load_checkpoint("net.pt").imported["file"] == "net.caffemodel"
    record = json.loads(alexnet("import", "net.caffemodel", "--json", "--overwrite", "--mean", "104,117,123").out)
    assert record["model"] == "caffenet" and record["source"]["form"] == "a Caffe model"
    assert record["preprocessing"]["mean"] == [123.0, 117.0, 104.0] and record["num_classes"] == 5
    assert record["weights"][0] == {"name": "conv1.weight", "source_name": "conv1[0]", "shape": [8, 3, 11, 11]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth"], "There is no file none.pth, and no published weights of that name; those are IMAGENET1K_V1"),
        (["."], "is a folder; give the file with the weights"),
        (["empty"], "is empty"),
        (["page.pth"], "is a web page, not weights"),
        (["pointer.pth"], "is a pointer of Git LFS"),
        (["deploy.prototxt"], "describes a network without its weights"),
        (["keras.h5"], "is an HDF5 file"),
        (["objects.pkl"], "is a pickle of Python"),
        (["noise"], "is of no kind that is known here; weights are read from files of torch.save"),
        (["net.caffemodel", "--output", "."], "is a folder; give the path of a file"),
        (["net.caffemodel", "--output", "net.caffemodel"], "is the file itself"),
        (["net.caffemodel", "--output", "there.pt"], "is there already; name another file"),
        (["net.caffemodel", "--variant", "alexnet"], "There is no model 'alexnet'"),
        (["net.caffemodel", "--image-size", "100"], "for images of 199 to 230 px, not of 100 px"),
        (["net.caffemodel", "--mean", "nothing.npy"], "There is no mean file nothing.npy"),
        (["net.caffemodel", "--mean", "net.caffemodel"], "cannot be read as a mean image of Caffe"),
        (["net.caffemodel", "--std", "1,1,1"], "--std is for networks with inputs of unit scale"),
        (["net.caffemodel", "--std", "1"], "--std '1' is not three numbers"),
        (["net.caffemodel", "--resize", "100"], "smaller than the network's input of 227"),
        (["net.caffemodel", "--key", "model"], "--key is for files of torch.save"),
        (["net.caffemodel", "--classes", "page.pth"], "names 1 classes, and the network has 5 outputs"),
        (["checkpoint.pt"], "is a checkpoint of this package already"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(arguments, message, alexnet, tmp_path: Path) -> None:
    write(tmp_path / "net.caffemodel", net_of(create_model(small("caffe"), 5, seed=1)))
    files = {
        "empty": b"",
        "page.pth": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "pointer.pth": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "deploy.prototxt": b'name: "AlexNet"\nlayer { name: "conv1" }\n',
        "keras.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "objects.pkl": b"\x80\x04}\x94.",
        "noise": bytes(range(7, 256)),
        "there.pt": b"something else",
    }
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
    torch.save({"format": "alexnet-checkpoint", "format_version": 1}, "checkpoint.pt")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = alexnet("import", *arguments)
    assert (done.code, done.out) == (2, "") and done.err.startswith("error: ") and message in done.err, done.err
    assert done.err.count("\n") == 1
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before

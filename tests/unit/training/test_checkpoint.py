"""Checkpoints: whole or absent, plain, and telling what they are."""

import os
import pickle
import zipfile

import pytest
import torch

from alexnet.errors import RunError, UserError
from alexnet.runtime import files
from alexnet.training.checkpoint import build_model, load_checkpoint, load_model, save_checkpoint

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 50


def test_a_checkpoint_comes_back_whole(checkpoint, tiny_model, tmp_path):
    save_checkpoint(str(tmp_path / "a.pt"), checkpoint)
    again = load_checkpoint(tmp_path / "a.pt")
    for field in (
        "architecture",
        "classes",
        "class_names",
        "recipe",
        "data",
        "step",
        "epoch",
        "metrics",
        "environment",
    ):
        assert getattr(again, field) == getattr(checkpoint, field), field
    assert torch.equal(again.preprocessing.mean_image, checkpoint.preprocessing.mean_image)
    assert torch.equal(build_model(again)(IMAGES), tiny_model.eval()(IMAGES))


def test_it_is_plain_types_and_tensors(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    contents = torch.load(tmp_path / "a.pt", weights_only=True)
    assert contents["format"] == "alexnet-checkpoint" and contents["format_version"] == 1

    def check(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert isinstance(key, str | int)
                check(item)
        elif isinstance(value, list | tuple):
            for item in value:
                check(item)
        else:
            assert value is None or isinstance(value, str | int | float | bool | torch.Tensor), type(value)

    check(contents)


def test_a_loaded_model_is_an_ordinary_module_in_evaluation_mode(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    model = load_model(tmp_path / "a.pt")
    assert not model.training
    model(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_path_may_begin_with_the_users_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    assert load_checkpoint("~/a.pt").step == checkpoint.step
    with pytest.raises(UserError):
        load_checkpoint("~nobody-here/a.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not really a zip", os.urandom(5000)])
def test_another_file_is_refused_in_a_sentence(content, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*missing\.pt"):
        load_checkpoint(tmp_path / "missing.pt")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(checkpoint, tmp_path, keep):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UserError, match=r"it begins as one and is cut off after [\d,]+ bytes; copy it again"):
        load_checkpoint(tmp_path / "a.pt")


def test_other_peoples_weights_are_told_apart(tmp_path):
    torch.save({"state_dict": {"features.0.weight": torch.zeros(1)}}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a checkpoint of alexnet"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_newer_format_is_refused(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    contents = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save({**contents, "format_version": 99}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(tmp_path / "a.pt")


def test_an_incomplete_description_is_refused(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    contents = torch.load(tmp_path / "a.pt", weights_only=True)
    del contents["classes"]
    torch.save(contents, tmp_path / "a.pt")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["only one"]}, "class_names are not"),
        ({"step": "7"}, "step is of the type str"),
        ({"recipe": None}, "recipe is of the type NoneType"),
        ({"model_state": {"conv1.weight": 3}}, "not all tensors"),
    ],
)
def test_a_description_that_cannot_be_is_refused(checkpoint, change, message, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    contents = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save({**contents, **change}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("change", [lambda mean: mean[:3, :3], lambda mean: mean.half()], ids=["small", "half"])
def test_a_mean_that_the_kernel_would_read_beyond_is_refused(checkpoint, change, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    contents = torch.load(tmp_path / "a.pt", weights_only=True)
    contents["preprocessing"]["mean_image"] = change(contents["preprocessing"]["mean_image"])
    torch.save(contents, tmp_path / "a.pt")
    with pytest.raises(UserError, match="with a mean of"):
        load_checkpoint(tmp_path / "a.pt")


def test_layers_that_cannot_be_built_are_refused(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    contents = torch.load(tmp_path / "a.pt", weights_only=True)
    contents["architecture"]["layers"][0]["channels"] = "many"
    torch.save(contents, tmp_path / "a.pt")
    with pytest.raises(UserError, match="channels"):
        load_model(tmp_path / "a.pt")


def test_a_file_that_would_become_larger_is_not_unpacked(checkpoint, tmp_path):
    checkpoint.model_state["zeros"] = torch.zeros(1_000_000)
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(UserError, match=r"b\.pt is compressed"):
        load_checkpoint(tmp_path / "b.pt")


def test_no_code_from_a_file_is_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    with (tmp_path / "a.pt").open("wb") as file:
        pickle.dump({"format": "alexnet-checkpoint", "model_state": Payload()}, file)
    with pytest.raises(UserError):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"format": "alexnet-checkpoint", "model_state": Payload()}, tmp_path / "b.pt")
    with pytest.raises(UserError):
        load_checkpoint(tmp_path / "b.pt")
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(checkpoint, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    before = (tmp_path / "a.pt").read_bytes()

    def half(contents, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RunError, match=r"disk is full.*kept.*goes on from the last checkpoint"):
        save_checkpoint(tmp_path / "a.pt", checkpoint)
    assert (tmp_path / "a.pt").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.pt"]


def test_a_disk_without_room_is_noticed_before_writing(checkpoint, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match="disk is full"):
        save_checkpoint(tmp_path / "a.pt", checkpoint)
    assert not (tmp_path / "a.pt").exists()


def test_the_file_appears_by_renaming_after_it_was_flushed(checkpoint, tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(type(tmp_path), "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    assert order[:2] == ["fsync", "rename"]


def test_weights_that_do_not_fit_are_refused(checkpoint):
    del checkpoint.model_state["fc8.bias"]
    with pytest.raises(UserError, match="do not fit"):
        build_model(checkpoint)

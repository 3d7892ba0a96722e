"""Checkpoints written beside the training, checked when they are read, with the ones before kept."""

import os
import sys
import threading
from dataclasses import replace

import pytest
import torch

from alexnet.errors import RunError, UserError
from alexnet.reporting.progress import Progress
from alexnet.training import checkpoint_writer
from alexnet.training.begin import last_checkpoint
from alexnet.training.checkpoint import earlier_checkpoints, load_checkpoint, save_checkpoint
from alexnet.training.checkpoint_writer import CheckpointWriter
from alexnet.training.run_folder import RunFolder


@pytest.fixture
def writer():
    with CheckpointWriter() as made:
        yield made


def test_what_is_written_is_what_was_there_when_it_began(checkpoint, tmp_path, writer, monkeypatch):
    begin = threading.Event()

    def save_later(*arguments, **options):
        assert begin.wait(10)
        save_checkpoint(*arguments, **options)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save_later)
    before = {name: tensor.clone() for name, tensor in checkpoint.model_state.items()}
    writer.write(tmp_path / "last.pt", checkpoint)
    for tensor in checkpoint.model_state.values():
        tensor.add_(1)
    begin.set()
    writer.wait()
    written = load_checkpoint(tmp_path / "last.pt").model_state
    assert all(torch.equal(written[name], tensor) for name, tensor in before.items())


def test_a_failure_is_raised_by_the_next_call(checkpoint, tmp_path, writer, monkeypatch):
    def fail(*arguments, **options):
        raise RunError("The disk is full")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    writer.write(tmp_path / "last.pt", checkpoint)
    with pytest.raises(RunError, match="disk is full"):
        writer.write(tmp_path / "last.pt", checkpoint)
    writer.wait()  # it is raised once


def test_its_thread_ends_with_it(checkpoint, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RunError("The disk is full")

    before = threading.enumerate()
    writer = CheckpointWriter()
    for step in (1, 2):
        with writer:
            writer.write(tmp_path / "last.pt", replace(checkpoint, step=step))
        assert threading.enumerate() == before
    assert load_checkpoint(tmp_path / "last.pt").step == 2
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    with pytest.raises(RunError), writer:
        writer.write(tmp_path / "last.pt", checkpoint)
    assert threading.enumerate() == before


def test_so_many_are_kept(checkpoint, tmp_path):
    path = tmp_path / "last.pt"
    for step in range(1, 6):
        save_checkpoint(path, replace(checkpoint, step=step), keep=3)
    assert [load_checkpoint(file).step for file in (path, *earlier_checkpoints(path))] == [5, 4, 3]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last-1.pt", "last-2.pt", "last.pt"]


def test_without_keep_there_is_one(checkpoint, tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path / "last.pt", replace(checkpoint, step=step))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_failed_write_leaves_all_that_was_there(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, replace(checkpoint, step=1), keep=2)
    save_checkpoint(path, replace(checkpoint, step=2), keep=2)

    def fail(contents, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RunError, match="disk is full"):
        save_checkpoint(path, replace(checkpoint, step=3), keep=2)
    assert [load_checkpoint(file).step for file in (path, *earlier_checkpoints(path))] == [2, 1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last-1.pt", "last.pt"]


def test_keeping_works_where_files_cannot_have_two_names(checkpoint, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    for step in (1, 2):
        save_checkpoint(tmp_path / "last.pt", replace(checkpoint, step=step), keep=2)
    assert load_checkpoint(tmp_path / "last-1.pt").step == 1


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_one_flipped_bit_is_found(checkpoint, tmp_path, place):
    path = tmp_path / "last.pt"
    checkpoint.model_state["large"] = torch.randn(100_000)
    save_checkpoint(path, checkpoint)
    load_checkpoint(path)
    damaged = bytearray(path.read_bytes())
    damaged[int(len(damaged) * place)] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness for each thread")
def test_the_writing_thread_stands_back_and_no_other(checkpoint, tmp_path, writer, monkeypatch):
    seen = []

    def save(*_, **__):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save)
    writer.write(tmp_path / "last.pt", checkpoint)
    writer.wait()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert seen == [min(own + 10, 19)]


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_good_one_before(checkpoint, tmp_path):
    folder = RunFolder(tmp_path)
    path = folder.last_checkpoint
    path.parent.mkdir()
    for step in (1, 2):
        save_checkpoint(path, replace(checkpoint, step=step), keep=2)
    path.write_bytes(path.read_bytes()[:-1000])
    with Progress("silent") as display:
        assert last_checkpoint(folder, display).step == 1
        assert path.is_file()  # one who only looks changes nothing
        assert last_checkpoint(folder, display, set_aside=True).step == 1
    assert not path.exists() and path.with_name("last.pt.damaged").is_file()
    save_checkpoint(path, replace(checkpoint, step=3), keep=2)
    path.write_bytes(b"torn again")
    with Progress("silent") as display:
        assert last_checkpoint(folder, display, set_aside=True).step == 1

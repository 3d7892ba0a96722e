"""The cache holds whole files only, stays within its limit, and forgets what was not used for longest."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import pytest

from alexnet.data.shard_cache import DamagedDownload, ShardCache

CONTENT = {f"train/{i}.tar": bytes([i]) * 1000 for i in range(8)}


def fetch(cache, name, content=None, **options):
    content = CONTENT[name] if content is None else content
    return cache.fetch(name, 1000, hashlib.sha256(CONTENT[name]).hexdigest(), lambda: iter([content]), **options)


@pytest.fixture(params=["locks of files", "locks of threads"])
def locks(request, monkeypatch):
    """With and without what only Unix has."""
    if request.param == "locks of threads":
        monkeypatch.setitem(sys.modules, "fcntl", None)


def names(cache):
    return sorted(path.name for path in cache.folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def use(cache, name, when):
    os.utime(cache.folder / name, (when, when))


def test_what_was_fetched_is_there(tmp_path):
    cache = ShardCache(tmp_path, 5000)
    assert cache.get("train/1.tar", 1000) is None
    path = fetch(cache, "train/1.tar")
    assert path is not None and path.read_bytes() == CONTENT["train/1.tar"]
    assert cache.get("train/1.tar", 1000) == path
    assert fetch(cache, "train/1.tar", b"not read") == path


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    cache = ShardCache(tmp_path, 3500)
    for i in (1, 2, 3):
        fetch(cache, f"train/{i}.tar")
        use(cache, f"train/{i}.tar", 1000 + i)
    cache.get("train/1.tar", 1000)  # used again just now
    fetch(cache, "train/4.tar")
    assert names(cache) == ["1.tar", "3.tar", "4.tar"]


def test_what_is_kept_does_not_make_room(tmp_path):
    cache = ShardCache(tmp_path, 2500)
    for i in (1, 2):
        fetch(cache, f"train/{i}.tar")
        use(cache, f"train/{i}.tar", 1000 + i)
    cache.kept = {"train/1.tar"}
    assert fetch(cache, "train/3.tar") is not None and names(cache) == ["1.tar", "3.tar"]
    cache.kept = {"train/1.tar", "train/3.tar"}
    assert fetch(cache, "train/4.tar") is None
    assert fetch(ShardCache(tmp_path, 999), "train/4.tar") is None


def test_what_cannot_be_deleted_yet_stays_and_counts(tmp_path, monkeypatch):
    cache = ShardCache(tmp_path, 2500)
    for i in (1, 2):
        fetch(cache, f"train/{i}.tar")
        use(cache, f"train/{i}.tar", 1000 + i)
    unlink = Path.unlink

    def refuse(path, **options):  # as Windows does while another process has a file mapped
        if path.name == "1.tar":
            raise PermissionError
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert fetch(cache, "train/3.tar") is not None and names(cache) == ["1.tar", "3.tar"]
    cache.kept = {"train/3.tar"}
    assert fetch(cache, "train/4.tar") is None and names(cache) == ["1.tar", "3.tar"]


@pytest.mark.parametrize("content", [b"", b"\1" * 999, b"\1" * 1001, b"\2" * 1000])
def test_what_came_wrong_is_not_kept(tmp_path, content):
    cache = ShardCache(tmp_path, 5000)
    with pytest.raises(DamagedDownload):
        fetch(cache, "train/1.tar", content)
    assert names(cache) == []
    assert fetch(cache, "train/1.tar") is not None


def test_an_interrupted_download_leaves_nothing_that_counts(tmp_path):
    cache = ShardCache(tmp_path, 2500)

    def broken():
        yield b"\1" * 500
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        cache.fetch("train/1.tar", 1000, "", broken)
    assert names(cache) == []
    (tmp_path / "train" / "1.tar.part").write_bytes(b"of a killed process" * 100)
    (tmp_path / "train" / "2.tar.part").write_bytes(b"of another" * 100)
    assert fetch(cache, "train/1.tar") is not None and fetch(cache, "train/3.tar") is not None
    assert names(cache) == ["1.tar", "3.tar"]


def test_only_one_fetches_a_file_at_a_time(tmp_path, locks):
    cache = ShardCache(tmp_path, 5000)
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        go_on.wait(10)
        yield CONTENT["train/1.tar"]

    digest = hashlib.sha256(CONTENT["train/1.tar"]).hexdigest()
    thread = threading.Thread(target=cache.fetch, args=("train/1.tar", 1000, digest, slow))
    thread.start()
    begun.wait(10)
    assert fetch(ShardCache(tmp_path, 5000), "train/1.tar") is None
    assert cache.get("train/1.tar", 1000) is None
    go_on.set()
    thread.join()
    assert cache.get("train/1.tar", 1000) is not None


def test_two_downloads_do_not_take_the_same_room(tmp_path, locks):
    cache = ShardCache(tmp_path, 1500)
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        go_on.wait(10)
        yield CONTENT["train/1.tar"]

    digest = hashlib.sha256(CONTENT["train/1.tar"]).hexdigest()
    thread = threading.Thread(target=cache.fetch, args=("train/1.tar", 1000, digest, slow))
    thread.start()
    begun.wait(10)
    assert fetch(cache, "train/2.tar") is None
    go_on.set()
    thread.join()
    assert names(cache) == ["1.tar"]


def _fetch_many(folder, failures):
    cache = ShardCache(folder, 3000)
    for turn in range(60):
        name = f"train/{(turn * 7 + os.getpid()) % 8}.tar"
        path = fetch(cache, name)
        try:
            if path is not None and path.read_bytes() != CONTENT[name]:
                failures.put(name)
        except FileNotFoundError:
            pass  # the other process has made room


def test_two_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    processes = [context.Process(target=_fetch_many, args=(tmp_path, failures)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0] and failures.empty()
    assert not [name for name in names(ShardCache(tmp_path, 3000)) if name.endswith(".part")]

"""`alexnet prepare` and what follows it: killed at any point, fed with broken files, on real data, up to training."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_processes import run_process
from layouts_of_imagenet import SmallImageNet, colour_of
from PIL import Image

from alexnet.commands.evaluate import evaluate
from alexnet.commands.prepare import prepare
from alexnet.config import DataConfig
from alexnet.data.prepared import load_statistics, open_prepared
from alexnet.data.sources import open_source
from alexnet.evaluation.predictor import load_predictor, predict_each
from alexnet.training.run import train

TINY_RECIPE = [
    "cifar-quick",
    "train.batch_size=16",
    "runtime.num_workers=0",
    "runtime.num_threads=1",
    "data.image_size=32",
]


def alexnet(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = run_process(*arguments)
    assert not check or result.returncode == 0, result.stderr
    return result


def train_here(data: Path, output: Path, *overrides: str) -> Path:
    """A short training in this process, which saves the time of starting another."""
    recipe, *fixed = TINY_RECIPE
    train(recipe, str(data), output, overrides=[*fixed, "train.epochs=1", *overrides], progress="silent")
    return output


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def class_folders(root: Path, count: int, side: int = 40) -> Path:
    for label, name in enumerate(("cat", "dog", "owl")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            noise = np.random.RandomState(1000 * label + i).normal(0, 12, (side, side + 6, 3))
            pixels = np.clip(noise + np.roll([60, 120, 190], label), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.jpg", quality=90)
    return root


# ---------------------------------------------------------------- from preparing to predicting


def test_a_prepared_set_is_trained_on_and_evaluated_with_its_own_statistics(tmp_path: Path):
    folder = class_folders(tmp_path / "pets", 30)
    printed = alexnet("prepare", folder, tmp_path / "set", "--size", 32, "--json", "--workers", 2)
    summary = json.loads(printed.stdout)
    assert summary["splits"]["train"]["num_images"] == 81 and summary["splits"]["val"]["num_images"] == 9
    assert "Preparing training images" in printed.stderr and "images/s" in printed.stderr
    run = tmp_path / "run"
    trained = alexnet("train", *TINY_RECIPE, "train.epochs=12", "--data", tmp_path / "set", "--output", run)
    assert "Mean image and colour covariance" not in trained.stderr
    assert (run / "statistics.npz").read_bytes() == (tmp_path / "set" / "statistics.npz").read_bytes()
    report = json.loads(alexnet("evaluate", run, "--data", tmp_path / "set", "--json").stdout)
    assert report["num_images"] == 9 and report["top1_error"] == 0
    fewer = alexnet(
        *("train", *TINY_RECIPE, "train.epochs=1", "data.max_train_images=40"),
        *("--data", tmp_path / "set", "--output", tmp_path / "fewer"),
    )
    assert "Mean image and colour covariance" in fewer.stderr, "those of all images are not those of 40"


@pytest.mark.data
def test_the_official_form_with_the_real_kit_has_every_label_right(data_folder: Path, tmp_path: Path):
    """Twelve classes and 150 validation images: numbers, wnids and labels are those of the real development kit."""
    kit = data_folder / "ilsvrc2012-devkit"
    if not kit.is_dir():
        pytest.skip(f"no real development kit: looked for {kit}")
    # The truth, from the files that do not need the kit's numbers to be understood: names in sorted order of wnids.
    lines = (kit / "synset_words.txt").read_text().splitlines()
    words = dict(line.split(" ", 1) for line in lines)
    import scipy.io

    synsets = scipy.io.loadmat(kit / "meta.mat", squeeze_me=True)["synsets"]
    wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    truth = [wnid_of[int(line)] for line in (kit / "ILSVRC2012_validation_ground_truth.txt").read_text().split()]
    labels = truth[:150]
    small = SmallImageNet(tuple(sorted(set(labels)))[::-1], 1, labels)
    contents = {name: (kit / name).read_bytes() for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")}
    small.archives(tmp_path / "archives", contents)
    record = prepare(tmp_path / "archives", tmp_path / "set", image_size=32, progress="silent", num_workers=2)
    assert record["classes"] == sorted(set(labels)) and len(record["classes"]) > 100
    assert all(
        words[wnid].startswith(name) for wnid, name in zip(record["classes"], record["class_names"], strict=True)
    )
    source = open_prepared(tmp_path / "set")
    assert [source.classes[label] for label in source.val.labels] == labels
    for i in range(len(source.val)):
        seen = source.val.read(i).reshape(-1, 3).mean(axis=0)
        assert np.abs(seen - colour_of(labels[i], small.wnids)).max() < 8
    # The same content in another layout is the same data set.
    prepare(small.sorted_folders(tmp_path / "folders"), tmp_path / "other", image_size=32, progress="silent")
    first, other = files_of(tmp_path / "set"), files_of(tmp_path / "other")
    assert first.pop("dataset.json") != other.pop("dataset.json") and first == other
    run = train_here(tmp_path / "set", tmp_path / "run")
    assert evaluate(run, data=str(tmp_path / "set"), progress="silent").num_images == 150


@pytest.mark.data
def test_real_photographs_and_the_real_tiny_imagenet_prepare_and_train(data_folder: Path, tmp_path: Path):
    photos = data_folder / "imagenet-photos"
    tiny = data_folder / "tiny-imagenet-10"
    if not photos.is_dir() or not tiny.is_dir():
        pytest.skip(f"no real images: looked for {photos} and {tiny}")
    for path in sorted(photos.iterdir()):  # one image a class: put together what lives and what does not
        side = tmp_path / "photos" / ("animal" if path.name < "n02665" else "thing")
        side.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, side)
    record = prepare(tmp_path / "photos", tmp_path / "photos-64", image_size=64, progress="silent", num_workers=2)
    assert sum(part["num_images"] for part in record["splits"].values()) == 40 and not record["skipped"]
    record = prepare(tiny, tmp_path / "tiny", progress="silent", num_workers=2)
    assert record["image_size"] == 64 and record["classes"] == sorted(record["classes"])
    assert record["splits"]["train"]["class_counts"] == [500] * 10
    assert record["splits"]["val"]["class_counts"] == [50] * 10
    original, source = (open_source(str(path), DataConfig(image_size=64)) for path in (tiny, tmp_path / "tiny"))
    assert source.classes == original.classes and source.class_names == original.class_names
    number = {Path(key).stem: i for i, key in enumerate(original.val.keys)}
    for i in range(0, len(source.val), 25):  # a JPEG of 64 px is kept as it is
        at = number[source.val.keys[i]]
        assert original.val.labels[at] == source.val.labels[i] and (original.val.read(at) == source.val.read(i)).all()
    for name in ("photos-64", "tiny"):
        train_here(tmp_path / name, tmp_path / f"run-{name}", "data.max_train_images=64")


# ---------------------------------------------------------------- killed


@pytest.mark.slow
def test_killed_at_twenty_places_the_result_is_the_same_byte_for_byte(tmp_path: Path):
    folder = class_folders(tmp_path / "pets", 60, side=220)
    options = ("--size", 200, "--images-per-shard", 9, "--workers", 2, "--quiet")
    started = time.monotonic()
    alexnet("prepare", folder, tmp_path / "whole", *options)
    seconds = time.monotonic() - started
    expected = files_of(tmp_path / "whole")
    command = [sys.executable, "-m", "alexnet", "prepare", folder, tmp_path / "set", *options]
    chance = random.Random(7)
    kills, finished_before = 0, 0
    while kills < 20:
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            # Half of the kills come at any time of a run, half soon after another shard was finished.
            if kills % 2:
                process.wait(chance.uniform(0.1, 0.7 * seconds))
            else:
                deadline = time.monotonic() + 2 * seconds
                goal = len(list((tmp_path / "set").glob(".progress/*.npz"))) + 1
                while process.poll() is None and time.monotonic() < deadline:
                    if len(list((tmp_path / "set").glob(".progress/*.npz"))) >= goal:
                        break
                    time.sleep(0.002)
                time.sleep(chance.uniform(0, 0.03))
        except subprocess.TimeoutExpired:
            pass
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error
        kills += process.returncode == -signal.SIGKILL  # one that came after the end does not count
        records = list((tmp_path / "set").glob(".progress/*-*.npz"))
        assert len(records) >= finished_before or (tmp_path / "set" / "dataset.json").is_file(), "work was lost"
        finished_before = len(records)
        if (tmp_path / "set" / "dataset.json").is_file():
            # It came to its end: begin again, so that twenty are survived in all.
            alexnet("prepare", folder, tmp_path / "set", *options)
            assert files_of(tmp_path / "set") == expected
            shutil.rmtree(tmp_path / "set")
            finished_before = 0
    alexnet("prepare", folder, tmp_path / "set", *options)
    assert files_of(tmp_path / "set") == expected


def test_an_interrupt_is_one_message_and_the_same_command_goes_on(tmp_path: Path):
    folder = class_folders(tmp_path / "pets", 120, side=220)
    options = ("--size", 200, "--images-per-shard", 9, "--workers", 1, "--quiet")
    command = [sys.executable, "-m", "alexnet", "prepare", folder, tmp_path / "set", *options]
    for _ in range(5):  # on a busy machine it may be done before the signal comes
        process = subprocess.Popen(
            [*map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a shell ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while process.poll() is None and not list((tmp_path / "set").glob(".progress/*-*.npz")):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        if process.returncode != 0:
            break
        shutil.rmtree(tmp_path / "set")
    assert process.returncode == 1 and error.startswith("error: Interrupted. The finished shards in"), error
    assert not (tmp_path / "set" / ".lock").exists() and not list((tmp_path / "set").rglob("*.tmp"))
    alexnet("prepare", folder, tmp_path / "set", *options)


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path):
    import fcntl

    folder = class_folders(tmp_path / "pets", 4)
    (tmp_path / "set" / ".progress").mkdir(parents=True)
    with (tmp_path / "set" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = alexnet("prepare", folder, tmp_path / "set", check=False)
    assert refused.returncode == 2 and "Another process is preparing" in refused.stderr
    assert alexnet("prepare", folder, tmp_path / "set").returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full to play the full disk")
def test_a_full_disk_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path):
    """A limit on the size of files stands for the full disk: writing beyond it fails in the same place."""
    folder = class_folders(tmp_path / "pets", 60, side=220)
    options = ("--size", 200, "--images-per-shard", 60, "--quiet")
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "from alexnet.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", limited, "prepare", folder, tmp_path / "set", *options]
    stopped = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 1, stopped.stderr
    assert "The disk is full" in stopped.stderr and "goes on from there" in stopped.stderr
    assert "Traceback" not in stopped.stderr and not list((tmp_path / "set").rglob("*.tmp"))
    alexnet("prepare", folder, tmp_path / "set", *options)
    alexnet("prepare", folder, tmp_path / "whole", *options)
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


# ---------------------------------------------------------------- broken files


def damage(data: bytes, kind: int, chance: random.Random) -> bytes:
    """A file broken in one of eight ways."""
    broken = bytearray(data)
    if kind == 0:  # one bit
        position = chance.randrange(len(broken))
        broken[position] ^= 1 << chance.randrange(8)
    elif kind == 1:  # many bits
        for _ in range(40):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    elif kind == 2:  # cut off
        del broken[chance.randrange(1, len(broken)) :]
    elif kind == 3:  # a hole
        start = chance.randrange(len(broken))
        broken[start : start + 200] = bytes(len(broken[start : start + 200]))
    elif kind == 4:  # the header alone is damaged
        for _ in range(3):
            broken[chance.randrange(min(64, len(broken)))] = chance.randrange(256)
    elif kind == 5:  # a piece is missing
        start = chance.randrange(len(broken))
        del broken[start : start + 50]
    elif kind == 6:  # not an image at all
        broken = bytearray(chance.choice([b"", b"<html></html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(999)]))
    else:  # its sizes are a lie
        at = broken.find(b"IHDR") + 4 if broken[:4] == b"\x89PNG" else broken.find(b"\xff\xc0") + 5
        broken[at : at + 4] = bytes(chance.randrange(256) for _ in range(4))
    return bytes(broken)


@pytest.mark.slow
def test_a_thousand_broken_files_are_named_and_the_good_ones_kept(tmp_path: Path):
    chance = random.Random(20261124)
    good: set[str] = set()
    broken: set[str] = set()
    contents: dict[str, bytes] = {}
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(560):
            noise = np.random.RandomState(2000 * label + i).normal(0, 10, (36, 40, 3))
            picture = Image.fromarray(np.clip(noise + 70 + 100 * label, 0, 255).astype(np.uint8))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG" if i % 2 else "PNG")
            data, key = buffer.getvalue(), f"{name}/{i:03d}{'.jpg' if i % 2 else '.png'}"
            is_broken = i < 500
            contents[key] = damage(data, i % 8, chance) if is_broken else data
            (broken if is_broken else good).add(key)
            (tmp_path / "pets" / key).write_bytes(contents[key])
    assert len(broken) == 1000
    record = prepare(tmp_path / "pets", tmp_path / "set", image_size=32, progress="silent", num_workers=2)
    source = open_prepared(tmp_path / "set")
    assert source.train is not None
    kept = {*source.train.keys, *source.val.keys}
    skipped = {item["file"]: item["reason"] for item in record["skipped"]}
    repaired = {item["file"]: item["reason"] for item in record["repaired"]}
    key_of = {file: file.replace("/", "_").rpartition(".")[0] for file in contents}
    assert not (skipped.keys() | repaired.keys()) & good, "a sound file was found fault with"
    for file in contents:
        assert (key_of[file] in kept) == (file not in skipped), "every image is kept or named"
    # Those that an independent reader refuses are all among the named; what it reads without a word may be kept.
    refused = {file for file in broken if not pillow_reads(contents[file])}
    assert len(refused) > 300 and refused <= skipped.keys()
    assert all(reason and "\n" not in reason and "0x" not in reason for reason in skipped.values())
    train_here(tmp_path / "set", tmp_path / "run")
    predictor = load_predictor(tmp_path / "run" / "checkpoints" / "best.pt", device="cpu")
    paths = [str(tmp_path / "pets" / file) for file in sorted(broken)]
    predictions = list(predict_each(predictor, paths, top=1, views="center"))
    assert {
        str(Path(p.input).relative_to(tmp_path / "pets")) for p in predictions if p.error
    } == skipped.keys() & broken
    train_here(tmp_path / "pets", tmp_path / "straight", "data.max_unreadable=1")
    named = json.loads((tmp_path / "straight" / "data.json").read_text())["skipped"]
    assert {key for part in named.values() for key in part} == skipped.keys()
    assert load_statistics(tmp_path / "set").num_images == len(source.train)


def pillow_reads(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        return True
    except Exception:
        return False

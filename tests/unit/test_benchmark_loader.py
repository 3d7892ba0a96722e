"""The benchmark of loading: everybody gets the same images, and the numbers are what they are called."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alexnet.benchmark import loading_bench
from alexnet.benchmark.job import LoadingJob
from alexnet.benchmark.loading import Loading, LoadingReport, choose_contestants, lay_out_data
from alexnet.benchmark.loading_bench import Block, LoadingBench, Ready
from alexnet.benchmark.loading_contestants import CONTESTANTS, open_contestant, why_impossible
from alexnet.commands.benchmark_loader import benchmark_loader_command
from alexnet.data.photographs import draw_photograph
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress

OWN = ["ours", "ours-raw", "ours-originals", "pil-originals", "dataloader"]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Eight drawn photographs in all forms, read without other processes."""
    with Progress("silent") as progress:
        found, count = lay_out_data(
            None, 8, tmp_path_factory.mktemp("data"), batch_size=4, num_workers=0, progress=progress
        )
    assert count == 8
    return found


@pytest.mark.parametrize("name", OWN)
def test_a_contestant_gives_crops_of_the_right_images(job, name):
    batches = open_contestant(name, job)
    labels = []
    for _ in range(2):
        images, batch_labels = next(batches)
        assert tuple(images.shape) == (4, 224, 224, 3) and str(images.dtype) in ("torch.uint8", "uint8")
        labels += np.asarray(batch_labels).tolist()
    assert sorted(labels) == [0, 0, 1, 1, 2, 2, 3, 3]  # an epoch


def test_all_see_the_same_brightness(job):
    # The same images, cropped at random: their means differ little, and would much for other images or channels.
    means = {}
    for name in OWN:
        batches = open_contestant(name, job)
        images = np.concatenate([np.asarray(next(batches)[0]) for _ in range(8)])
        means[name] = images.mean(axis=(0, 1, 2))
    # (Crops are drawn anew each time: the channels are 14 and more apart, the means of 32 crops up to 5.)
    assert all(np.abs(mean - means["ours"]).max() < 9 for mean in means.values()), means


def test_a_block_is_timed_by_the_clock_and_by_cores(job, monkeypatch):
    monkeypatch.setattr(loading_bench, "_BLOCK_SECONDS", 0.01)
    bench = LoadingBench("ours-raw", job)
    ready = bench.prepare()
    block = bench.block(ready.batches_per_block)
    assert ready.batches_per_block >= 2 and block.seconds > 0 and 0 < block.cpu_seconds < 10 * block.seconds + 1
    bench.close()


def test_batches_of_a_wrong_shape_are_an_error(job, monkeypatch):
    monkeypatch.setattr(loading_bench, "open_contestant", lambda name, job: iter([(np.zeros((4, 9, 9, 3)), [0] * 4)]))
    with pytest.raises(ValueError, match=r"\(4, 9, 9, 3\) instead of \(4, 224, 224, 3\)"):
        LoadingBench("ours", job).prepare()


def loading(name, seconds, cpu_seconds):
    blocks = [Block(s, c) for s, c in zip(seconds, cpu_seconds, strict=True)]
    return Loading(name, 10, Ready(5, 1.0), None, blocks)


def test_the_record_has_medians_and_ratios():
    ours, other = loading("ours", [1, 2, 4], [1, 1, 2]), loading("dataloader", [5, 10, 10], [10, 10, 20])
    record = LoadingReport(LoadingJob(None, "x", None, 10, 2), 3, 100, [ours, other], [], {}).to_dict()
    assert record["images_per_second"] == 25 and record["images_per_core_second"] == 50
    assert record["contestants"][0]["images_per_second_spread"] == [12.5, 50]
    assert record["ratios"] == {"ours/dataloader": {"by_clock": 5, "by_cores": 10}}
    json.dumps(record)


def test_who_cannot_take_part_is_left_out_with_the_reason():
    only_raw = LoadingJob(None, None, "x", 4, 0)
    chosen, left_out = choose_contestants("pil-originals,dataloader", only_raw)
    assert chosen == ["ours-raw"]
    assert {item.name: item.reason for item in left_out}["pil-originals"].startswith("it reads class folders")
    assert choose_contestants("none", only_raw)[0] == ["ours-raw"]
    with pytest.raises(UserError, match="did you mean 'dataloader'"):
        choose_contestants("dataloadr", only_raw)


@pytest.mark.parametrize("name", ["webdataset", "dali"])
def test_a_package_that_is_not_installed_is_named(monkeypatch, job, name):
    monkeypatch.setattr("alexnet.benchmark.loading_contestants.find_spec", lambda package: None)
    assert "is not installed" in why_impossible(name, job)
    assert name in CONTESTANTS


@pytest.mark.filterwarnings("ignore")  # theirs: of files that they leave open
@pytest.mark.parametrize("name", ["webdataset", "dali"])
def test_other_peoples_loaders_give_crops_too(job, name):
    if why_impossible(name, job):
        pytest.skip(why_impossible(name, job))
    images, labels = next(open_contestant(name, job))
    assert tuple(images.shape) == (4, 224, 224, 3) and len(labels) == 4


def test_drawn_photographs_are_the_same_every_time_and_as_large_as_photographs():
    assert np.array_equal(draw_photograph(3), draw_photograph(3))
    assert {draw_photograph(i).shape for i in range(3)} == {(375, 500, 3), (333, 500, 3), (500, 375, 3)}
    assert 30 < draw_photograph(0).std() < 90


def test_the_command_measures_a_prepared_data_set(job, capsys, tmp_path):
    benchmark_loader_command(
        data=job.raw,
        num_images=1,
        batch_size=4,
        num_workers=1,
        baselines="none",
        rounds=2,
        output=tmp_path / "record.json",
        as_json=True,
        quiet=True,
    )
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert record["images_per_second"] > 0 and record["num_images"] == 8 and record["rounds"] == 2
    assert [entry["name"] for entry in record["contestants"]] == ["ours-raw"]
    assert {item["name"] for item in record["left_out"]} == {"ours", "ours-originals"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "--rounds 0"),
        ({"batch_size": 9}, "more than the 8 images"),
        ({"num_workers": -1}, "--workers -1"),
        ({"data": "/no/such/folder"}, "neither a prepared data set nor a folder"),
    ],
)
def test_mistakes_are_named(job, change, message):
    options = {
        "data": job.jpeg,
        "num_images": 1,
        "batch_size": 4,
        "num_workers": 0,
        "baselines": "none",
        "rounds": 1,
        "output": None,
        "as_json": True,
        "quiet": True,
    }
    with pytest.raises(UserError, match=message):
        benchmark_loader_command(**options | change)

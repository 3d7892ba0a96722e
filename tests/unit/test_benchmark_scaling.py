"""`alexnet benchmark scaling`: the blocks, the steps while a checkpoint is written, and what is printed."""

import json
from dataclasses import replace

import pytest

from alexnet.benchmark import scaling
from alexnet.benchmark.scaling import STEPS, ScalingJob, measure_saving, measure_scaling, ways
from alexnet.commands.benchmark_scaling import benchmark_scaling_command
from alexnet.errors import RunError, UserError
from alexnet.reporting.progress import Progress

JOB = ScalingJob("cifar_quick", 32, 16, "float32", 2, 1)
OPTIONS = {"batch_size": 16, "precision": "float32", "processes": 2, "rounds": 1, "as_json": True, "quiet": True}


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(scaling, "SAVING_STEPS", 24)


def test_every_way_has_the_same_number_of_threads_in_all():
    assert [way.processes * way.threads for way in ways(JOB)] == [2] * 5
    assert [way.name for way in ways(replace(JOB, processes=4))] == [
        *("one process, 4 threads", "4 processes", "4 processes, classifier sharded", "4 processes, weights sharded"),
    ]


def test_a_block_is_a_training_whose_first_steps_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "ways", lambda job: ways(job)[:1])
    with Progress("silent") as progress:
        (one,) = measure_scaling(JOB, tmp_path, progress)
    assert len(one.rates) == 1 and one.images_per_second > 1
    assert json.loads((tmp_path / "0-0" / "summary.json").read_text())["step"] == STEPS


def test_a_training_that_fails_is_told(tmp_path):
    with Progress("silent") as progress, pytest.raises(RunError, match=r"one process, 2 threads failed: .*precision"):
        measure_scaling(replace(JOB, precision="float8"), tmp_path, progress)


def test_checkpoints_are_written_while_steps_go_on(tmp_path):
    with Progress("silent") as progress:
        saving = measure_saving("cifar_quick", 8, "float32", tmp_path, progress)
    assert saving.checkpoints == 2 and saving.checkpoint_mb > 1
    assert saving.ratio == saving.longest_ms / saving.median_ms > 0
    assert (tmp_path / "last-1.pt").is_file()


def test_mistakes_are_told_before_anything_is_measured():
    with pytest.raises(UserError, match="--image-size 20 is too small for as_run; the smallest is"):
        benchmark_scaling_command(model="as_run", image_size=20, output=None, **OPTIONS)
    with pytest.raises(UserError, match="leaves some of 32 processes without an image"):
        benchmark_scaling_command(model="as_run", image_size=None, output=None, **{**OPTIONS, "processes": 32})


def test_the_record_has_ratios(tmp_path, monkeypatch, capsys):
    rates = iter([100.0, 90.0, 80.0, 50.0, 25.0])
    monkeypatch.setattr(scaling, "_rate", lambda job, way, output: next(rates))
    output = tmp_path / "record.json"
    benchmark_scaling_command(model="cifar_quick", image_size=None, output=output, **OPTIONS)
    record = json.loads(output.read_text())
    assert [way["ratio"] for way in record["ways"]] == [1.0, 0.9, 0.8, 0.5, 0.25]
    assert record == json.loads(capsys.readouterr().out)

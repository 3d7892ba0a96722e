"""The published trace of the 19 % net: what is compared with what."""

import json

import pytest

from alexnet.errors import UserError
from alexnet.reporting.progress import Progress
from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce import trace
from alexnet.reproduce.workbench import Workbench


def run_of(folder, losses, num_steps=1329):
    """A run whose loss during a file is that of the file, with the events of a log of every 5 steps."""
    events, step = [], 0
    while step < num_steps:
        last, step = step, min(step + 5, num_steps)
        files = [min(int(at * 128 / 10_000), len(losses) - 1) for at in range(last, step)]
        events.append({"event": "step", "step": step, "loss": sum(losses[file] for file in files) / len(files)})
    events.append({"event": "evaluation", "step": 1016, "loss": 1.5})
    return RunRecord(folder, events=events)


@pytest.fixture
def bench(tmp_path):
    return Workbench(tmp_path, "", (0, 1), (), "full", Progress("silent"))


def study(bench, monkeypatch, *losses, num_steps=1329):
    asked = []

    def over_seeds(bench, label, name, overrides):
        asked.extend(overrides)
        return {seed: run_of(bench.folder, own, num_steps) for seed, own in enumerate(losses)}

    monkeypatch.setattr(trace, "over_seeds", over_seeds)
    return trace.run(bench).rows, dict(override.split("=") for override in asked)


def test_each_file_of_the_log_is_compared_with_the_mean_over_its_images(bench, monkeypatch):
    log = list(trace.LOGGED.values())
    (*files, test, in_range, in_interval), asked = study(
        bench, monkeypatch, [x + 0.02 for x in log], [x - 0.03 for x in log]
    )
    assert [row.published for row in files] == log
    # A file has 78.125 steps; of the five steps at its end a part belongs to the next one.
    assert files[2].values == {0: pytest.approx(log[2] + 0.02, abs=0.01), 1: pytest.approx(log[2] - 0.03, abs=0.01)}
    assert (test.published, test.values) == (1.538126, {0: 1.5, 1: 1.5})
    assert in_range.values == in_interval.values == {0: 17}
    json.dumps([row.to_dict() for row in (*files, test, in_range, in_interval)])  # what a record holds
    assert (float(asked["train.epochs"]), float(asked["train.evaluate_every_epochs"])) == (3.4, 2.6)
    assert asked["data.shuffle"] == '"never"'


def test_files_outside_the_seeds_are_not_counted(bench, monkeypatch):
    log = list(trace.LOGGED.values())
    low, high = [x - 0.02 for x in log], [x + 0.02 for x in log]
    high[8] = log[8] - 0.01
    rows, _ = study(bench, monkeypatch, low, high)
    # Two runs say little about a third: 12.7 standard deviations of it, times the square root of 1.5.
    assert [row.values for row in rows[-2:]] == [{0: 16}, {0: 17}]
    rows, _ = study(bench, monkeypatch, low)
    assert (rows[-1].values, rows[-1].status) == ({}, "not run")
    alike = [[x - 0.01 - 0.001 * seed for x in log] for seed in range(10)]
    rows, _ = study(bench, monkeypatch, *alike)
    assert [row.values for row in rows[-2:]] == [{0: 0}, {0: 0}]


def test_trainings_that_saw_less_are_refused(bench, monkeypatch):
    with pytest.raises(UserError):
        study(bench, monkeypatch, list(trace.LOGGED.values()), num_steps=1300)

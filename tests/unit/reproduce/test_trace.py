"""The published trace of the 19 % net: what is compared with what."""

import pytest

from alexnet.errors import UserError
from alexnet.reporting.progress import Progress
from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce import trace
from alexnet.reproduce.workbench import Workbench


def bench(tmp_path, monkeypatch, shift, num_files=17):
    """A bench whose trainings give the log's losses plus `shift` for seed 0 and minus it for seed 1."""
    asked = []

    def over_seeds(bench, label, name, overrides):
        asked.extend(overrides)
        runs = {}
        for seed, sign in ((0, 1), (1, -1)):
            events = [
                {"event": "step", "step": 79 * (number + 1), "loss": loss + sign * shift(number)}
                for number, loss in enumerate(trace.LOGGED.values())
            ][:num_files]
            events.append({"event": "evaluation", "step": 1027, "loss": 1.5 + sign * 0.1})
            runs[seed] = RunRecord(tmp_path, events=events)
        return runs

    monkeypatch.setattr(trace, "over_seeds", over_seeds)
    return Workbench(tmp_path, "", (0, 1), (), "full", Progress("silent")), asked


def test_each_file_of_the_log_has_its_steps_and_the_count_says_how_many_lie_between_the_seeds(tmp_path, monkeypatch):
    made, asked = bench(tmp_path, monkeypatch, lambda number: 0.02 if number < 11 else 0.0)
    *files, test, count = trace.run(made).rows
    assert [row.published for row in files] == list(trace.LOGGED.values())
    assert files[2].values == {0: pytest.approx(2.003224), 1: pytest.approx(1.963224)}
    assert (test.published, test.values) == (1.538126, {0: 1.6, 1: 1.4})
    assert count.values == {0: 17}
    settings = dict(override.split("=") for override in asked)
    # 390.625 steps an epoch; a training ends at the first whole step that is not before its end.
    assert 1342 < float(settings["train.epochs"]) * 390.625 < 1343
    assert 1026 < float(settings["train.evaluate_every_epochs"]) * 390.625 < 1027
    assert settings["logging.log_every_steps"] == "79"


def test_files_outside_the_seeds_are_not_counted(tmp_path, monkeypatch):
    made, _ = bench(tmp_path, monkeypatch, lambda number: 0.02)
    fake = trace.over_seeds

    def moved(*arguments):
        runs = fake(*arguments)
        for run in runs.values():
            run.events[0]["loss"] += 1
        return runs

    monkeypatch.setattr(trace, "over_seeds", moved)
    assert trace.run(made).rows[-1].values == {0: 16}


def test_trainings_of_other_data_are_refused(tmp_path, monkeypatch):
    made, _ = bench(tmp_path, monkeypatch, lambda number: 0.0, num_files=16)
    with pytest.raises(UserError):
        trace.run(made)

"""metrics.jsonl: complete lines, and no event twice after a continuation."""

import json
import sys

import pytest

from alexnet.config import LoggingConfig
from alexnet.errors import UserError
from alexnet.reporting.metrics_log import MetricsLog, open_sinks, read_events


class Recorder:
    def __init__(self):
        self.events, self.closed = [], False

    def write(self, event):
        self.events.append(event)

    def close(self):
        self.closed = True


def test_events_are_lines_of_json_and_reach_the_sinks(tmp_path):
    sink = Recorder()
    log = MetricsLog(tmp_path / "metrics.jsonl", [sink], keep_until_step=None)
    log.write("step", step=10, loss=2.5)
    log.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"event": "step", "step": 10, "loss": 2.5}
    assert sink.events == [json.loads(line)] and sink.closed


def test_an_event_is_on_the_disk_before_the_next(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", [], keep_until_step=None)
    log.write("step", step=1, loss=1.0)
    assert len(read_events(tmp_path / "metrics.jsonl")) == 1  # without close: a killed run keeps it
    log.close()


def test_a_continued_run_drops_what_will_come_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, [], keep_until_step=None)
    for step in range(1, 8):
        log.write("step", step=step)
    log.write("end", step=4)
    log.close()
    log = MetricsLog(path, [], keep_until_step=5)
    log.write("resume", step=5)
    log.close()
    assert [event["step"] for event in read_events(path)] == [1, 2, 3, 4, 5, 5]
    assert [event["event"] for event in read_events(path)][-1] == "resume"


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "step", "st')
    assert [event["step"] for event in read_events(path)] == [1]
    MetricsLog(path, [], keep_until_step=3).close()
    assert path.read_text() == '{"event": "step", "step": 1}\n'


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", [], keep_until_step=None)
    log.write("step", step=1, loss=float("nan"), best=float("inf"))
    log.close()
    assert read_events(tmp_path / "metrics.jsonl") == [{"event": "step", "step": 1, "loss": None, "best": None}]


@pytest.mark.parametrize(("sink", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_library_is_named_with_its_remedy(sink, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'alexnet\[{sink}\]'"):
        open_sinks(LoggingConfig(**{sink: True}), tmp_path, {})


def test_no_sink_is_opened_unasked(tmp_path):
    assert open_sinks(LoggingConfig(), tmp_path, {}) == []


def test_wandb_gets_every_number(tmp_path, monkeypatch):
    class FakeRun:
        def __init__(self):
            self.logged = []

        def log(self, values, step):
            self.logged.append((step, values))

        def finish(self):
            self.logged.append("finished")

    class FakeWandb:
        run = FakeRun()

        @classmethod
        def init(cls, **options):
            cls.options = options
            return cls.run

    monkeypatch.setitem(sys.modules, "wandb", FakeWandb)
    (sink,) = open_sinks(LoggingConfig(wandb=True, wandb_project="nets"), tmp_path, {"seed": 3})
    log = MetricsLog(tmp_path / "metrics.jsonl", [sink], keep_until_step=None)
    log.write("evaluation", step=7, top1_error=0.4, views="center", is_best=True)
    log.close()
    assert FakeWandb.options["project"] == "nets" and FakeWandb.options["config"] == {"seed": 3}
    assert FakeWandb.run.logged == [(7, {"evaluation/top1_error": 0.4}), "finished"]

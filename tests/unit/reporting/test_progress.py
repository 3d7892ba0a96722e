import io
import re

import pytest

from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Progress, format_field, format_seconds


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(mode="auto", stream=None, steps=1000, seconds=100.0, transient=False):
    """One task of `steps` batches of 128 images that takes `seconds`; returns what was printed, by line."""
    stream = stream if stream is not None else io.StringIO()
    clock = Clock()
    with Progress(mode, stream=stream, clock=clock) as progress:
        task = progress.start("Training", steps * 128, transient=transient)
        for step in range(1, steps + 1):
            clock.now += seconds / steps
            task.update(step * 128, {"loss": 1.5, "error": 0.25})
        task.finish()
    return stream.getvalue().splitlines()


def test_elsewhere_than_on_a_terminal_lines_are_few():
    lines = run(seconds=100)
    assert lines[0] == "Training: 128000 images"
    assert re.fullmatch(r"Training: 128000 images in 1:40  1280 images/s  loss 1\.500  error 25\.0 %", lines[-1])
    between = lines[1:-1]
    assert 8 <= len(between) <= 10
    assert all(
        re.fullmatch(r"Training: \d+ %  1280 images/s  loss 1.500  error 25.0 %  \d:\d\d left", x) for x in between
    )


def test_quick_work_prints_its_start_and_end_only():
    assert len(run(seconds=3)) == 2
    assert run(seconds=3, transient=True) == []


def test_two_tasks_share_the_limit_of_lines():
    stream, clock = io.StringIO(), Clock()
    with Progress("plain", stream=stream, clock=clock) as progress:
        first, second = (progress.start(name, 1000, transient=True) for name in "ab")
        for step in range(600):
            clock.now += 0.1
            first.update(step)
            second.update(step)
    assert len(stream.getvalue().splitlines()) <= 6


def test_silence_is_silent():
    assert run("silent") == []
    stream = io.StringIO()
    with Progress("silent", stream=stream) as progress:
        progress.message("x")
        progress.counter("Reading")(1, 2)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_with_rate_loss_and_error(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    text = "\n".join(run(stream=Terminal(), steps=50, seconds=50.0))
    assert "Training" in text and "100 %" in text and "128 images/s" in text and "error 25.0 %" in text


def test_a_bar_is_not_redrawn_at_every_step(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    clock, calls = Clock(), []
    with Progress("bars", stream=Terminal(), clock=clock) as progress:
        report = progress.report
        progress.report = lambda task: calls.append(task) or report(task)
        task = progress.start("Training", 10_000)
        for step in range(10_000):
            clock.now += 0.001
            task.update(step)
    assert 50 <= len(calls) <= 110


def test_standard_output_is_left_alone(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    with Progress("bars", stream=Terminal()) as progress:
        task = progress.start("Training", 10)
        print("the answer")
        task.update(10)
    assert capsys.readouterr().out == "the answer\n"


def test_a_task_that_was_begun_before_counts_only_its_own_speed():
    clock = Clock()
    task = Progress("silent", stream=io.StringIO(), clock=clock).start("Training", 1000, done=900)
    clock.now += 10
    task.update(950)
    assert task.rate == 5.0 and task.status() == "5 images/s  0:10 left"


def test_unfinished_work_says_so_also_when_it_fails():
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress("plain", stream=stream, clock=Clock()) as progress:
        progress.start("Reading", 10).update(4)
        raise KeyError
    assert stream.getvalue().splitlines()[-1].startswith("Reading: stopped at 4 of 10 in 0:00")


def test_a_counter_starts_and_ends_its_own_task():
    stream = io.StringIO()
    with Progress("plain", stream=stream, clock=Clock()) as progress:
        count = progress.counter("Reading images")
        for done in (3, 6, 7):
            count(done, 7)
    assert stream.getvalue() == "Reading images: 7 images\nReading images: 7 images in 0:00\n"


def test_a_counter_may_go_round_again_and_be_called_after_its_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    with Progress("bars", stream=Terminal(), clock=clock) as progress:
        count = progress.counter("Reading", unit="MB", transient=True)
        for done in (1, 5, 5, 2, 5, 5):  # the second of two archives begins where done goes back
            clock.now += 1
            count(done, 5)


def test_names_cannot_steer_the_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for mode, stream in (("plain", io.StringIO()), ("bars", Terminal())):
        with Progress(mode, stream=stream) as progress:
            progress.message("a\x1b[2Jb [red]c[/red]\r")
        assert r"a\u001b[2Jb [red]c[/red]\u000d" in stream.getvalue()


def test_numbers_are_shown_as_people_read_them():
    assert format_field("error", 0.4066) == "40.7 %"
    assert format_field("lr", 0.000251984) == "0.00025"
    assert format_field("loss", 1.61466) == "1.615"
    assert format_field("step", 100000) == "100000"
    assert [format_seconds(s) for s in (0, 59.6, 3599, 3723, 90000)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:02:03",
        "1 d 01:00",
    ]


def test_a_table_for_a_pipe_is_aligned_and_never_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    print_table(["name", "n"], [("x" * 50, 7), ("[b]y[/b]\x1b", None)], title="T", numeric=["n"], stream=stream)
    assert stream.getvalue().splitlines() == [
        "T",
        "name" + " " * 48 + "n",
        "x" * 50 + "  7",
        r"[b]y[/b]\u001b" + " " * 37 + " -",
    ]


def test_a_table_on_a_terminal_holds_every_cell(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    print_table(["name", "n"], [("[b]cat[/b]", 7)], title="T", numeric=["n"], stream=stream)
    assert "[b]cat[/b]" in stream.getvalue() and "7" in stream.getvalue()


def test_a_counters_rate_counts_the_time_before_its_first_call():
    stream, clock = io.StringIO(), Clock()
    with Progress("plain", stream=stream, clock=clock, plain_seconds=1.0) as progress:
        count = progress.counter("Validation", transient=True)
        for done in (100, 200, 300):
            clock.now += 10
            count(done, 1000)
    assert stream.getvalue().splitlines()[0] == "Validation: 10 %  10 images/s  1:30 left"

"""The loop knows how long it waited for images, and says so once."""

import numpy as np
import pytest

from alexnet.data.splits import Storage
from alexnet.data.squares import ImageSet
from alexnet.training import data_wait
from alexnet.training.data_wait import DataWait, reading_advice


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def run(clock, wait, num_items, reading, working):
    """So many items, each read and worked on for a time; what end_window said after each."""

    def items():
        for number in range(num_items):
            clock.time += reading
            yield number

    said = []
    for _ in wait.timed(items()):
        clock.time += working
        said.append(wait.end_window(reading + working))
    return said


def test_the_share_of_the_time_in_waiting_is_measured_from_the_second_batch_on():
    clock = Clock()
    said = run(clock, DataWait(str, now=clock), 5, reading=1, working=3)
    assert [share for share, _ in said] == [0, 0.25, 0.25, 0.25, 0.25]


def test_a_run_that_waits_is_told_once_and_after_ten_seconds():
    clock = Clock()
    said = run(clock, DataWait(lambda share: f"advice for {share:.2f}", now=clock), 40, reading=1, working=3)
    messages = [(number, message) for number, (_, message) in enumerate(said) if message]
    assert messages == [(2, "Training waits for images: 17% of the last 12 s. advice for 0.17")]


def test_a_little_waiting_is_not_worth_a_message():
    clock = Clock()
    assert not any(message for _, message in run(clock, DataWait(str, now=clock), 100, reading=0.1, working=0.95))


def test_what_is_waited_while_the_device_works_does_not_count():
    clock = Clock()
    said = run(clock, DataWait(str, is_busy=lambda: True, now=clock), 10, reading=1, working=1)
    assert said == [(0, None)] * 10


def test_leaving_the_loop_closes_what_reads():
    closed = []

    def items():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    timed = DataWait(str).timed(items())
    next(timed)
    timed.close()
    assert closed == [True]


class Loader:
    def __init__(self, num_workers, storage, in_memory=False):
        array = np.zeros((2, 4, 4, 3), np.uint8) if in_memory else None
        read = None if in_memory else (lambda i: np.zeros((4, 4, 3), np.uint8))
        self.images = ImageSet(np.zeros(2, np.int64), ["a", "b"], 4, array=array, read=read, storage=storage)
        self.num_workers = num_workers


@pytest.mark.parametrize(
    ("storage", "in_memory", "said", "not_said"),
    [
        (Storage(), False, "alexnet prepare SOURCE DEST", "again"),
        (Storage(shards=np.zeros(2, np.int32)), False, "prepare the data set again", "DEST"),
        (Storage(has_pixels=True, shards=np.zeros(2, np.int32)), False, "runtime.num_workers from 2 to 3", "prepare"),
        (Storage(is_remote=True), False, "data.cache_gb", "prepare"),
        (Storage(), True, "runtime.num_workers from 2 to 3", "prepare"),
        (Storage(is_remote=True), True, "runtime.num_workers from 2 to 3", "copy"),
    ],
)
def test_the_advice_fits_the_data(monkeypatch, storage, in_memory, said, not_said):
    monkeypatch.setattr(data_wait.os, "cpu_count", lambda: 8)
    advice = reading_advice(Loader(2, storage, in_memory), 0.3)
    assert said in advice and not_said not in advice


def test_the_advice_does_not_ask_for_more_threads_than_there_are_cores(monkeypatch):
    monkeypatch.setattr(data_wait.os, "cpu_count", lambda: 4)
    assert "from 2 to 4 of this machine's 4 cores" in reading_advice(Loader(2, Storage()), 0.9)
    assert "num_workers" not in reading_advice(Loader(4, Storage()), 0.9)
    assert "other work" in reading_advice(Loader(4, Storage(), in_memory=True), 0.9)

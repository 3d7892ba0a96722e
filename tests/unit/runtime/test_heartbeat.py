"""A process that hangs is named, with what it was doing."""

import json
import time

from alexnet.runtime import heartbeat
from alexnet.runtime.heartbeat import Heartbeat, Sign


class MemoryStore:
    def __init__(self):
        self.values = {}

    def set(self, key, value):
        self.values[key] = value.encode()

    def check(self, keys):
        return all(key in self.values for key in keys)

    def get(self, key):
        return self.values[key]


def test_others_hear_what_a_process_does_and_since_when(monkeypatch):
    monkeypatch.setattr(heartbeat, "_INTERVAL_SECONDS", 0.01)
    store = MemoryStore()
    first, second = Heartbeat(store, 0, 3), Heartbeat(store, 1, 3)
    try:
        second.doing("reading images", 118)
        deadline = time.monotonic() + 10
        while first.others()[0].doing != "reading images" and time.monotonic() < deadline:
            time.sleep(0.01)
        (sign,) = first.others()  # rank 2 has not said anything yet, and a process does not list itself
        assert (sign.rank, sign.doing, sign.step) == (1, "reading images", 118)
        before = sign.doing_seconds
        time.sleep(0.05)
        assert first.others()[0].doing_seconds > before
    finally:
        first.close()
        second.close()


def test_the_one_that_is_furthest_behind_comes_first():
    store = MemoryStore()
    one = Heartbeat(store, 0, 3)
    one.close()
    for rank, step in ((1, 12), (2, 11)):
        said = {"doing": "exchanging gradients", "step": step, "seconds": 1.0, "at": time.time()}
        store.set(f"sign-of-life/{rank}", json.dumps(said))
    assert [sign.rank for sign in one.others()] == [2, 1]


def test_silence_is_told_from_slowness():
    slow = Sign(rank=2, doing="reading images", step=118, doing_seconds=65, silent_seconds=1)
    assert slow.describe() == "rank 2 has been reading images for 65 s (step 118)"
    gone = Sign(rank=2, doing="reading images", step=118, doing_seconds=65, silent_seconds=60)
    assert "has not been heard of for 60 s" in gone.describe()


def test_a_closed_heartbeat_falls_silent(monkeypatch):
    monkeypatch.setattr(heartbeat, "_INTERVAL_SECONDS", 0.01)
    store = MemoryStore()
    beat = Heartbeat(store, 0, 1)
    beat.close()
    time.sleep(0.1)
    said = store.get("sign-of-life/0")
    beat.doing("anything", 5)
    time.sleep(0.1)
    assert store.get("sign-of-life/0") == said

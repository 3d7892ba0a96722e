"""What is asked at the same time is answered together, and no more is let in than there is room for."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alexnet.serve.batching import Batcher, Door
from alexnet.serve.refusals import Refused


class Bench:
    """Batches that were run, each item doubled; a run lasts until `gate` is open."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, items):
        assert self.gate.wait(10)
        self.batches.append(list(items))
        if "bad" in items:
            raise ValueError("bad")
        return [2 * item for item in items]


def use(scenario, *, batch_size=8, max_wait_seconds=0.0, coming=lambda: 0, on_batch=None):
    bench = Bench()

    async def main():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(
                bench.run,
                executor,
                batch_size=batch_size,
                max_wait_seconds=max_wait_seconds,
                coming=coming,
                on_batch=on_batch,
            )
            async with batcher:
                async with asyncio.timeout(20):
                    return await scenario(bench, batcher)

    return bench, asyncio.run(main())


def test_what_waits_while_a_batch_runs_goes_together_in_order_and_within_the_limit():
    async def scenario(bench, batcher):
        bench.gate.clear()
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.submit(number)) for number in range(1, 7)]
        await asyncio.sleep(0.05)
        bench.gate.set()
        return await asyncio.gather(first, *others)

    bench, results = use(scenario, batch_size=4)
    assert results == [0, 2, 4, 6, 8, 10, 12]
    assert bench.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_who_is_alone_does_not_wait():
    async def scenario(bench, batcher):
        started = time.monotonic()
        await batcher.submit(1)
        return time.monotonic() - started

    _, seconds = use(scenario, max_wait_seconds=15.0)
    assert seconds < 5


def test_a_batch_waits_for_those_who_are_coming():
    async def scenario(bench, batcher):
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.1)
        return await asyncio.gather(first, batcher.submit(2))

    bench, _ = use(scenario, batch_size=2, max_wait_seconds=15.0, coming=lambda: 1)
    assert bench.batches == [[1, 2]]


def test_but_not_for_ever():
    bench, result = use(lambda bench, batcher: batcher.submit(3), max_wait_seconds=0.05, coming=lambda: 1)
    assert (bench.batches, result) == ([[3]], 6)


def test_a_failure_is_told_to_its_batch_only():
    async def scenario(bench, batcher):
        bench.gate.clear()
        before = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        failing = [asyncio.create_task(batcher.submit(item)) for item in ("bad", "too")]
        await asyncio.sleep(0.05)
        bench.gate.set()
        outcomes = await asyncio.gather(before, *failing, return_exceptions=True)
        return outcomes, await batcher.submit(5)

    _, (outcomes, after) = use(scenario)
    assert outcomes[0] == 2 and after == 10
    assert all(isinstance(outcome, ValueError) for outcome in outcomes[1:])


def test_who_has_gone_away_is_not_worked_for():
    async def scenario(bench, batcher):
        bench.gate.clear()
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        gone, stays = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
        await asyncio.sleep(0.05)
        gone.cancel()
        bench.gate.set()
        return await asyncio.gather(first, stays)

    bench, _ = use(scenario)
    assert bench.batches == [[1], [3]]


def test_batches_are_counted():
    counted = []
    use(lambda bench, batcher: batcher.submit(1), on_batch=lambda size, seconds: counted.append((size, seconds >= 0)))
    assert counted == [(1, True)]


def test_the_door_lets_in_as_many_as_there_is_room_for():
    door = Door(max_requests=2, max_bytes=100)
    with door.enter() as first, door.enter() as second:
        with pytest.raises(Refused, match="busy") as refused, door.enter():
            pass
        assert (refused.value.status, refused.value.retry_seconds) == (503, 1)
        first.hold(60)
        with pytest.raises(Refused, match="busy"):
            second.hold(41)
        second.hold(40)
        first.release()
        second.hold(60)
        assert door.bytes_held == 100
    assert (door.num_inside, door.bytes_held) == (0, 0)

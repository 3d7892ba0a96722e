"""Many requests, one network: what comes at the same time goes through it together.

A pass through the network costs nearly as much for one image as for a few: most of the time goes into reading the
weights of fc6 and fc7 from memory. So the images of requests that are there at the same time share a pass. A request
that is alone never waits for others; see `Batcher`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Generic, TypeVar

from alexnet.serve.refusals import busy

Item = TypeVar("Item")
Result = TypeVar("Result")


class Visit:
    """A request that was let in, and the bytes that are held for it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.num_bytes = 0

    def hold(self, num_bytes: int) -> None:
        """Count so many more bytes of its upload. Raises Refused (503) where all uploads together are too large."""
        if self._door.bytes_held + num_bytes > self._door.max_bytes:
            raise busy("the uploads that it holds leave no room for another")
        self._door.bytes_held += num_bytes
        self.num_bytes += num_bytes

    def release(self) -> None:
        """The upload is not held any longer."""
        self._door.bytes_held -= self.num_bytes
        self.num_bytes = 0


class Door:
    """Counts the requests inside and the bytes held for them, and lets no more in than it may.

    It stands before everything that waits, so that no queue behind it can grow beyond `max_requests`.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.num_inside = 0
        self.bytes_held = 0

    @contextmanager
    def enter(self) -> Iterator[Visit]:
        """Be inside. Raises Refused (503) at once where there is no room."""
        if self.num_inside >= self.max_requests:
            raise busy(f"{self.num_inside} requests are being answered or wait")
        self.num_inside += 1
        visit = Visit(self)
        try:
            yield visit
        finally:
            visit.release()
            self.num_inside -= 1


class Batcher(Generic[Item, Result]):
    """Gathers items into batches and has `run` work on them, one batch after another, on `executor`.

    When the executor is free, what has arrived goes at once if nobody else is coming. Otherwise the batch waits until
    it is full, but at most `max_wait_seconds`. `coming()` says how many requests are on their way to `submit`. Use as
    an asynchronous context manager; everything but `run` happens on the event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        batch_size: int,
        max_wait_seconds: float,
        coming: Callable[[], int],
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        """run: a result for each item, in order. on_batch(size of the batch, seconds that it took)."""
        self._run = run
        self._executor = executor
        self._batch_size = batch_size
        self._max_wait_seconds = max_wait_seconds
        self._coming = coming
        self._on_batch = on_batch
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher[Item, Result]:
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def num_waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._queue.qsize()

    async def submit(self, item: Item) -> Result:
        """The result of one item. Whatever `run` raises is raised here, for every item of that batch."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, future))
        return await future

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._gather()
            # Who has gone away in the meantime needs no answer.
            batch = [(item, future) for item, future in batch if not future.done()]
            if not batch:
                continue
            started = loop.time()
            try:
                results = await loop.run_in_executor(self._executor, self._run, [item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            if self._on_batch is not None:
                self._on_batch(len(batch), loop.time() - started)
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _gather(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._max_wait_seconds
        while len(batch) < self._batch_size:
            if self._queue.empty() and self._coming() == 0:
                break
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

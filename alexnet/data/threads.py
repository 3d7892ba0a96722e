"""Work on many images in threads, with results in index order whatever the number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def map_blocks(
    function: Callable[[range], Result], num_items: int, block_size: int, num_workers: int
) -> Generator[tuple[range, Result], None, None]:
    """Call function(range) on consecutive blocks of 0 .. num_items - 1; yield (block, result) in order.

    num_workers 0 calls in this thread. An exception is raised at its block's turn: the first in index order wins.
    At most 4 blocks per worker are under way, which bounds the memory that finished results wait in.
    """
    blocks = (range(start, min(start + block_size, num_items)) for start in range(0, num_items, block_size))
    if num_workers == 0:
        for block in blocks:
            yield block, function(block)
        return
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="alexnet-data")
    pending: deque[tuple[range, Future[Result]]] = deque()
    try:
        for block in blocks:
            pending.append((block, executor.submit(function, block)))
            if len(pending) >= 4 * num_workers:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)

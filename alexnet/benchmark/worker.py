"""One contestant in a process of its own: it does what it is told through a pipe, and sleeps in between.

A process each keeps the peak memory and the allocator of one contestant apart from the others'. Nothing heavy is
imported at the top, so that interrupts are ignored from the start: the parent ends its workers itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from alexnet.benchmark.job import Job, LoadingJob

HARDWARE = "hardware"


def serve(connection: Connection, name: str, job: Job | LoadingJob) -> None:
    """Answer requests (method of a `Bench`, arguments) until the pipe is closed.

    An answer is ("done", value) or ("failed", what went wrong, in a line).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Standard output belongs to the parent's answer; libraries print to it.
    sys.stdout.flush()
    os.dup2(2, 1)
    import warnings

    warnings.simplefilter("ignore")
    from alexnet.benchmark.bench import open_bench

    bench = open_bench(name, job)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("done", getattr(bench, method)(*arguments))
        except Exception as error:
            lines = str(error).strip().splitlines()
            answer = ("failed", f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
        connection.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when it is gone, however it went
        os._exit(1)

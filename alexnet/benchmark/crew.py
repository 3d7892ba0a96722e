"""The workers as their parent sees them: asked for something, waited for with a limit, ended in any case."""

from __future__ import annotations

import multiprocessing
import signal
from types import TracebackType
from typing import Any

from alexnet.benchmark.job import Job, LoadingJob
from alexnet.benchmark.worker import serve

_SPAWN = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA, and inherits torch's threads


class WorkerError(Exception):
    """A worker that cannot go on; the message says why, without a name."""


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, job: Job | LoadingJob) -> None:
        self.name = name
        self._connection, theirs = _SPAWN.Pipe()
        # A daemon may not have processes of its own, as some ways of loading have; workers die with their parent anyway
        daemon = isinstance(job, Job)
        self._process = _SPAWN.Process(target=serve, args=(theirs, name, job), name=f"alexnet-{name}", daemon=daemon)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any, seconds: float) -> Any:
        """Call a method of the worker's bench. When it fails, dies or takes longer it is ended: WorkerError."""
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(seconds):
                self.close()
                raise WorkerError(f"gave no answer within {seconds:.0f} s")
            outcome, value = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(5)
            raise WorkerError(self._death()) from None
        if outcome == "failed":
            self.close()
            raise WorkerError(value)
        return value

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join(5)
        self._connection.close()

    def _death(self) -> str:
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "was killed, as the system does when memory runs out; try a smaller --batch-size"
        if code is not None and code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


class Crew:
    """All workers of a benchmark, as a context manager that leaves none behind."""

    def __init__(self, job: Job | LoadingJob) -> None:
        self.job = job
        self._workers: list[Worker] = []

    def hire(self, name: str) -> Worker:
        """Start one more."""
        worker = Worker(name, self.job)
        self._workers.append(worker)
        return worker

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()

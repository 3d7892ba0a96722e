"""The benchmark of `alexnet serve`: requests a second and latencies, with batching and without, and memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import simplejpeg

from alexnet.benchmark.load import Load, put_load, read_metric, running_server
from alexnet.benchmark.machine import describe_machine
from alexnet.data.photographs import draw_photograph
from alexnet.errors import RunError
from alexnet.reporting.progress import Progress

WARM_UP_SECONDS = 1.0
NUM_IMAGES = 16
MEMORY_CLIENTS = 8
MEMORY_PARTS = 20
_MEMORY = ("process_resident_memory_bytes", "alexnet_decoders_resident_memory_bytes")


class ServingJob(NamedTuple):
    """What is measured."""

    checkpoint: str
    clients: tuple[int, ...]
    """Numbers of clients that ask at the same time."""
    batch_size: int
    max_wait_ms: float
    rounds: int
    seconds: float
    """Of one block."""
    memory_requests: int
    """Requests of the measurement of memory; 0 leaves it out."""


@dataclass
class Contestant:
    """A server, and what its clients got: number of clients -> one block a round."""

    name: str
    batch_size: int
    blocks: dict[int, list[Load]] = field(default_factory=dict)

    def rate(self, clients: int) -> float:
        """Images a second: the median over the blocks."""
        return statistics.median(block.per_second for block in self.blocks[clients])

    def latency_ms(self, clients: int, share: float) -> float:
        """The latency that so large a share of all requests keeps within, milliseconds."""
        ordered = sorted(latency for block in self.blocks[clients] for latency in block.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        rows = {}
        for clients, blocks in self.blocks.items():
            rates = [block.per_second for block in blocks]
            rows[str(clients)] = {
                "images_per_second": self.rate(clients),
                "images_per_second_spread": [min(rates), max(rates)],
                "p50_ms": self.latency_ms(clients, 0.5),
                "p95_ms": self.latency_ms(clients, 0.95),
                "requests": sum(len(block.latencies) for block in blocks),
            }
        return {"name": self.name, "batch_size": self.batch_size, "clients": rows}


@dataclass
class ServingReport:
    """The record of a benchmark of serving."""

    job: ServingJob
    model: str
    contestants: list[Contestant]
    memory_bytes: list[float]
    """Server and decoders together, before the first and after each twentieth of the requests."""
    environment: dict[str, Any]

    def gain(self, clients: int) -> float:
        """How many times as many images a second batching gives."""
        with_batches, without = self.contestants
        return with_batches.rate(clients) / without.rate(clients)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        most = max(self.job.clients)
        return {
            "task": "serve",
            "images_per_second": self.contestants[0].rate(most),
            "model": self.model,
            "statistic": f"median of {self.job.rounds} interleaved blocks of {self.job.seconds:g} s",
            **self.job._asdict(),
            "contestants": [contestant.to_dict() for contestant in self.contestants],
            "gain_by_batching": {str(clients): self.gain(clients) for clients in self.job.clients},
            "memory_bytes": self.memory_bytes,
            "environment": self.environment,
        }


def draw_images(count: int = NUM_IMAGES) -> list[bytes]:
    """JPEG files of drawn photographs, of about 100 kB."""
    return [
        simplejpeg.encode_jpeg(draw_photograph(number), quality=92, colorsubsampling="420") for number in range(count)
    ]


def measure_serving(job: ServingJob, model: str, progress: Progress) -> ServingReport:
    """Start both servers, and put load on them in turns. Raises RunError where one does not start or fails requests."""
    contestants = [Contestant("batching", job.batch_size), Contestant("one at a time", 1)]
    images = draw_images()
    blocks = job.rounds * len(job.clients) * len(contestants)
    memory: list[float] = []
    with ExitStack() as stack:
        progress.message("Starting two servers")
        urls = [stack.enter_context(running_server(_arguments(job, one.batch_size))) for one in contestants]
        for url in urls:
            _checked(put_load(url, images, 2, seconds=WARM_UP_SECONDS))
        task = progress.start("Load", blocks, unit="blocks")
        for _ in range(job.rounds):
            for clients in job.clients:
                for contestant, url in zip(contestants, urls, strict=True):
                    block = _checked(put_load(url, images, clients, seconds=job.seconds))
                    contestant.blocks.setdefault(clients, []).append(block)
                    task.update(task.done + 1, {"clients": clients, "images/s": block.per_second})
        task.finish()
        if job.memory_requests:
            memory = _measure_memory(urls[0], images, job.memory_requests, progress)
    return ServingReport(job, model, contestants, memory, describe_machine())


def _arguments(job: ServingJob, batch_size: int) -> Sequence[str]:
    room = str(max(128, *job.clients))
    limits = ["--max-wait-ms", str(job.max_wait_ms), "--max-requests", room, "--request-seconds", "600"]
    return [str(Path(job.checkpoint)), "--batch-size", str(batch_size), *limits]


def _checked(load: Load) -> Load:
    if load.failures:
        raise RunError(f"{len(load.failures)} requests were not answered; the first: {load.failures[0]}")
    return load


def _measure_memory(url: str, images: Sequence[bytes], num_requests: int, progress: Progress) -> list[float]:
    def now() -> float:
        return sum(read_metric(url, name) or 0.0 for name in _MEMORY)

    part = max(1, num_requests // MEMORY_PARTS)
    task = progress.start("Memory", part * MEMORY_PARTS, unit="requests")
    found = [now()]
    for number in range(1, MEMORY_PARTS + 1):
        _checked(put_load(url, images, MEMORY_CLIENTS, num_requests=part))
        found.append(now())
        task.update(number * part, {"MB": found[-1] / 1e6})
    task.finish()
    return found

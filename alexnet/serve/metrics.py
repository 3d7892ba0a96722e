"""What a server counts of itself, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Counter:
    """A number for each combination of labels that only grows."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help, self._labels = name, help, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count `amount` more, for the values of the labels in their order."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def lines(self) -> list[str]:
        """Its samples."""
        return [
            _sample(self.name, dict(zip(self._labels, values, strict=True)), number)
            for values, number in sorted(self._values.items())
        ]


class Gauge:
    """A number that is asked for when it is wanted; None leaves it out."""

    kind = "gauge"

    def __init__(self, name: str, help: str, read: Callable[[], float | None]) -> None:
        self.name, self.help, self._read = name, help, read

    def lines(self) -> list[str]:
        """Its sample."""
        value = self._read()
        return [] if value is None else [_sample(self.name, {}, value)]


class Histogram:
    """How many observations were at most as large as each of some bounds."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self._bounds = name, help, tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> list[str]:
        """Its buckets, which contain those below them, its sum and its count."""
        lines, total = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            lines.append(_sample(f"{self.name}_bucket", {"le": _number(bound)}, total))
        return [*lines, _sample(f"{self.name}_sum", {}, self._sum), _sample(f"{self.name}_count", {}, total)]


class Metrics:
    """All that a server counts; changed on its event loop only."""

    def __init__(self) -> None:
        self.requests = Counter("alexnet_requests_total", "Requests answered.", ["method", "path", "status"])
        self.request_seconds = Histogram("alexnet_request_seconds", "From a request's head to its answer.", SECONDS)
        self.decode_seconds = Histogram(
            "alexnet_decode_seconds", "From an upload to the squares of it, waiting included.", SECONDS
        )
        self.batch_size = Histogram("alexnet_batch_size", "Images in one pass through a network.", BATCH_SIZES)
        self.batch_seconds = Histogram("alexnet_batch_seconds", "One pass through a network.", SECONDS)
        self.images = Counter("alexnet_images_total", "Images that a network has guessed about.")
        self._all: list[Counter | Gauge | Histogram] = [
            *(self.requests, self.request_seconds, self.decode_seconds, self.batch_size, self.batch_seconds),
            self.images,
            Gauge("process_resident_memory_bytes", "Resident memory of the server, decoders aside.", resident_bytes),
            Gauge("process_start_time_seconds", "Start of the server, seconds since 1970.", lambda: self._started),
            Gauge("process_cpu_seconds_total", "Processor time of the server, decoders aside.", time.process_time),
        ]
        self._started = time.time()

    def watch(self, name: str, help: str, read: Callable[[], float | None]) -> None:
        """Show a number that something else knows."""
        self._all.append(Gauge(name, help, read))

    def text(self) -> str:
        """The page that Prometheus reads."""
        lines = []
        for metric in self._all:
            samples = metric.lines()
            if samples:
                lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *samples]
        return "\n".join(lines) + "\n"


def resident_bytes(process_id: int | None = None) -> float | None:
    """Memory of a process (None: this one) that is in RAM; None where the system does not say (it is not Linux)."""
    try:
        counted = Path(f"/proc/{process_id or os.getpid()}/statm").read_text()
        return int(counted.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

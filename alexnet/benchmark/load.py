"""Clients that ask a server for one thing after another, as fast as it answers: threads with a connection each."""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from alexnet.errors import RunError

START_SECONDS = 300.0
END_SECONDS = 90.0
ANSWER_SECONDS = 120.0


@dataclass
class Load:
    """What some clients got in a while."""

    num_clients: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered request, from its first byte to the last of its answer."""
    failures: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Requests answered."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def put_load(
    url: str,
    images: Sequence[bytes],
    num_clients: int,
    *,
    seconds: float | None = None,
    num_requests: int | None = None,
) -> Load:
    """Let `num_clients` ask for guesses about the images in turn, for so long or so often; at least once each.

    A request that is not answered with 200 counts as a failure. The clock runs from the first request to the last
    answer.
    """
    load = Load(num_clients)
    numbers = itertools.count()  # next() of it is atomic
    started = time.perf_counter()

    def is_over(number: int) -> bool:
        if num_requests is not None:
            return number >= num_requests
        return number >= num_clients and time.perf_counter() - started >= (seconds or 0.0)

    def ask() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
        try:
            while not is_over(number := next(numbers)):
                began = time.perf_counter()
                connection.request("POST", "/api/predict", images[number % len(images)])
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    load.latencies.append(time.perf_counter() - began)
                else:
                    load.failures.append(f"{response.status}: {body[:200].decode('utf-8', 'replace')}")
        except (OSError, http.client.HTTPException) as error:
            load.failures.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - started
    return load


def read_metric(url: str, name: str) -> float | None:
    """A number without labels from a server's /metrics; None where it is not there."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), None)


@contextmanager
def running_server(arguments: Sequence[str]) -> Iterator[str]:
    """`alexnet serve` with these arguments in a process of its own; yields its address. Raises RunError."""
    command = [sys.executable, "-m", "alexnet", "serve", *arguments, "--port", "0", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        patience = threading.Timer(START_SECONDS, process.kill)
        patience.start()
        try:
            url = _address(process)
            patience.cancel()
            yield url
        finally:
            patience.cancel()
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    printed = ""
    while not printed.endswith("}\n"):
        line = process.stdout.readline()
        if not line:
            raise RunError(f"the server did not start: {process.stderr.read().strip() or 'it says nothing'}")
        printed += line
    return json.loads(printed)["url"]

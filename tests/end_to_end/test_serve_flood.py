"""`alexnet serve` under clients that do not read, idle connections, and decoders that are killed or stopped.

With ALEXNET_HEAVY_TESTS set, the same is repeated, and memory must not grow from one time to the next.
"""

import os
import resource
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from serving_stand_ins import color_checkpoint, picture
from test_serve_command import connect, served

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

ROUNDS = 10 if os.environ.get("ALEXNET_HEAVY_TESTS") else 2
NUM_SILENT, NUM_IDLE, ANSWER_BYTES = 60, 1100, 3_000_000
FILES = 512
"""Of the server: fewer than the idle connections."""
MAX_GROWTH_BYTES = 256_000_000
"""Unread answers (at most 128 MB together), as much again while they are written."""


@pytest.fixture
def files_for_the_clients():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4096:
        pytest.skip("this process may not open 4096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident(process_id):
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(process_id):
    return [int(number) for number in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def decoders(process_id):
    return [n for n in children(process_id) if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]


def open_clients(stack, record, count, request=b""):
    port = connect(record).port
    for _ in range(count):
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(request)


def predict_in_time(record, color):
    """One good request; it must be answered within five seconds."""
    started = time.monotonic()
    connection = connect(record)
    connection.request("POST", "/api/predict", picture(color))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200 and f'"{color}'.encode() in body
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_server_under_load_answers_stays_small_and_ends_in_time(tmp_path, files_for_the_clients):
    names = tuple(name + " " * (ANSWER_BYTES // 3) for name in ("red", "green", "blue"))
    checkpoint = color_checkpoint(tmp_path / "colours.pt", names=names)
    limit = ("prlimit", f"--nofile={FILES}:{FILES}")
    request = b"GET /api/description HTTP/1.1\r\nHost: localhost\r\n\r\n"
    peaks = []
    with (
        served(checkpoint, "--decoders", 2, folder=tmp_path, launcher=limit) as (process, record),
        ExitStack() as clients,
    ):
        predict_in_time(record, "red")
        before = resident(process.pid)
        for _ in range(ROUNDS):
            clients.close()
            open_clients(clients, record, NUM_SILENT, request)
            predict_in_time(record, "green")
            open_clients(clients, record, NUM_IDLE)
            predict_in_time(record, "blue")
            with ThreadPoolExecutor(2) as pool:
                for number in (signal.SIGKILL, signal.SIGSTOP):
                    for decoder in decoders(process.pid):
                        os.kill(decoder, number)
                    list(pool.map(lambda color: predict_in_time(record, color), ("red", "green", "blue", "red")))
            peaks.append(resident(process.pid) - before)
            assert len(os.listdir(f"/proc/{process.pid}/fd")) < FILES
        print("memory of the server:", before, peaks)
        assert max(peaks) < MAX_GROWTH_BYTES
        assert peaks[-1] - peaks[0] < 64_000_000
        open_clients(clients, record, NUM_SILENT, request)
        predict_in_time(record, "red")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - started < 10  # five seconds for clients that do not read
    assert process.returncode == 0 and "Traceback" not in errors
    assert len(errors) < 10_000


def test_a_host_that_is_allowed_is_the_only_one_on_a_network_too(tmp_path):
    checkpoint = color_checkpoint(tmp_path / "colours.pt")
    arguments = (checkpoint, "--decoders", 1, "--host", "0.0.0.0", "--allow-host", "Proxy.Example")
    with served(*arguments, folder=tmp_path) as (_, record):
        names = {"proxy.example": 200, "localhost": 200, "127.0.0.1": 200, "other.example": 403, "example": 403}
        for url in record["urls"]:
            names[url.split("/")[2]] = 200
        for name, status in names.items():
            connection = connect(record)
            connection.request("GET", "/health/live", headers={"Host": name})
            assert (name, connection.getresponse().status) == (name, status)
            connection.close()

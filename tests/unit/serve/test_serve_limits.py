"""What a server does when there is too much, or when somebody is too slow."""

import http.client
import logging
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_stand_ins import color_checkpoint, picture, running_server

from alexnet.serve import server as server_module
from alexnet.serve.settings import Settings


@pytest.fixture(scope="module")
def small(checkpoints):
    """A server with room for one request, which may take one second and a megabyte."""
    settings = Settings(max_requests=1, request_seconds=1.0, max_upload_bytes=1_000_000, num_decoders=1)
    with running_server(checkpoints[:1], settings=settings) as running:
        yield running


def half_a_request(running, body, length):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    connection.putrequest("POST", "/api/predict")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    connection.send(body)
    return connection


def inside(running, count):
    deadline = time.monotonic() + 10
    while running.service.door.num_inside != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_comes_when_the_room_is_full_is_told_to_come_again(small):
    data = picture("red")
    connection = half_a_request(small, data[:10], len(data))
    inside(small, 1)
    refused = small.post("/api/predict", data)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert "busy" in refused.json["error"]
    connection.send(data[10:])
    assert connection.getresponse().status == 200
    connection.close()
    inside(small, 0)
    assert small.post("/api/predict", data).status == 200


def test_an_upload_that_does_not_arrive_is_given_up(small):
    connection = half_a_request(small, b"few", 1000)
    response = connection.getresponse()
    assert response.status == 408 and b"did not arrive within 1 s" in response.read()
    connection.close()
    inside(small, 0)


def test_an_upload_that_breaks_off_leaves_nothing_behind(small):
    connection = half_a_request(small, b"few", 1000)
    inside(small, 1)  # else it may come in only when the next test's request does
    connection.close()
    inside(small, 0)
    assert small.service.door.bytes_held == 0


@pytest.mark.parametrize("announced", [True, False])
def test_too_large_an_upload_is_told_so(small, announced):
    body = b"\xff\xd8" + bytes(3_000_000)
    chunks = body if announced else (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    answer = small.post("/api/predict", chunks)
    assert answer.status == 413 and "larger than 1 MB" in answer.json["error"]


def test_all_uploads_together_have_a_limit(small):
    visit_limit = small.service.door.max_bytes
    small.service.door.max_bytes = 10
    try:
        answer = small.post("/api/predict", picture("red"))
    finally:
        small.service.door.max_bytes = visit_limit
    assert answer.status == 503 and "uploads" in answer.json["error"]


def test_a_silent_connection_is_closed(checkpoints, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.2)
    with (
        running_server(checkpoints[:1]) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as silent,
    ):
        assert silent.recv(1) == b""


def test_the_head_of_a_second_request_has_the_same_time(checkpoints, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.5)
    with running_server(checkpoints[:1]) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        connection.request("GET", "/health/live")
        assert connection.getresponse().read() == b'{"status":"live"}'
        connection.sock.settimeout(4)  # an idle connection is closed after five seconds, this one is not idle
        connection.sock.sendall(b"GET /health/li")
        assert connection.sock.recv(1) == b""
        connection.close()


def test_a_fault_of_ours_is_told_in_a_sentence_and_written_to_the_log(small, monkeypatch, caplog):
    def fail(*_, **__):
        raise ZeroDivisionError("secret of the server")

    monkeypatch.setattr("alexnet.serve.cards.guesses", fail)
    answer = small.post("/api/predict", picture("red"))
    assert (answer.status, answer.json) == (500, {"error": "The server failed at this request; its log says more."})
    deadline = time.monotonic() + 10
    while "secret of the server" not in caplog.text:  # written when the answer is on its way
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_not_http_is_told_so(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n")
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'{"error": "This is not' in answer


def test_who_hangs_up_is_not_worked_for(small, monkeypatch):
    hung_up = threading.Event()
    decode = small.service._open

    def decode_late(*arguments):
        assert hung_up.wait(10)
        time.sleep(0.1)  # until the server has noticed
        return decode(*arguments)

    monkeypatch.setattr(small.service, "_open", decode_late)
    before = passes(small)
    connection = half_a_request(small, picture("red"), len(picture("red")))
    inside(small, 1)
    connection.close()
    hung_up.set()
    inside(small, 0)
    assert passes(small) == before


def passes(running):
    """How many passes there were, and of how many images."""
    metrics = running.get("/metrics").body.decode().splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in metrics if not line.startswith("#"))
    return float(numbers["alexnet_batch_size_count"]), float(numbers["alexnet_batch_size_sum"])


def test_requests_at_the_same_time_share_a_pass(checkpoints, monkeypatch):
    settings = Settings(max_wait_ms=20_000, num_decoders=2)
    with running_server(checkpoints[:1], settings=settings) as running, ThreadPoolExecutor(2) as pool:
        both = threading.Barrier(2)
        decode = running.service._open

        def decode_one_after_the_other(*arguments):
            time.sleep(0.3 * both.wait(10))
            return decode(*arguments)

        monkeypatch.setattr(running.service, "_open", decode_one_after_the_other)
        answers = list(pool.map(lambda name: running.post("/api/predict", picture(name)), ("green", "blue")))
        assert [answer.json["networks"][0]["guesses"][0]["name"] for answer in answers] == ["green", "blue"]
        assert passes(running) == (1, 2)


# ---------------------------------------------------------------- clients that do not read, or only connect


LONG_NAMES = tuple(letter * 1_500_000 for letter in "abc")


@pytest.fixture(scope="module")
def long_answers(tmp_path_factory):
    """A checkpoint whose description is an answer of 4.5 MB, more than the buffers of a socket hold."""
    return color_checkpoint(tmp_path_factory.mktemp("long") / "long.pt", names=LONG_NAMES)


def ask_and_do_not_read(running, path="/api/description"):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", running.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def unread_sizes(running):
    """What each client has not read yet, by its port."""
    return {one.client[1]: one.unread_bytes for one in list(running.server.server_state.connections)}


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_does_not_read_its_answer_is_disconnected(long_answers, monkeypatch):
    monkeypatch.setattr(server_module, "ANSWER_SECONDS", 0.4)
    with running_server([long_answers]) as running:
        client = ask_and_do_not_read(running)
        wait_until(lambda: sum(unread_sizes(running).values()) > 1_000_000)
        wait_until(lambda: not unread_sizes(running))
        assert len(running.get("/api/description").json["networks"][0]["classes"][2]["name"]) == 1_500_000
        client.close()


def test_unread_answers_together_have_a_limit(long_answers, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_UNREAD_BYTES", 10_000_000)
    with running_server([long_answers]) as running:
        clients, ports = [], []
        for _ in range(5):
            clients.append(ask_and_do_not_read(running))
            ports.append(clients[-1].getsockname()[1])
            wait_until(lambda: unread_sizes(running).get(ports[-1], 0) > 4_000_000)
            assert sum(unread_sizes(running).values()) <= 10_000_000
        assert running.get("/health/live").status == 200
        assert sorted(port for port in unread_sizes(running) if port in ports) == sorted(ports[3:])  # the latest
        for client in clients:
            client.close()


def test_clients_that_do_not_read_do_not_delay_the_end(long_answers, monkeypatch):
    monkeypatch.setattr(server_module, "LAST_ANSWER_SECONDS", 0.2)
    with running_server([long_answers]) as running:
        client = ask_and_do_not_read(running)
        wait_until(lambda: sum(unread_sizes(running).values()) > 1_000_000)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    client.close()


def test_idle_connections_make_room_for_others(checkpoints, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 1000.0)
    data = picture("red")
    with running_server(checkpoints[:1]) as running:
        busy = half_a_request(running, data[:10], len(data))
        inside(running, 1)
        idle = [socket.create_connection(("127.0.0.1", running.port), timeout=5) for _ in range(30)]
        assert running.post("/api/predict", data).status == 200
        assert all(connection.recv(1) == b"" for connection in idle[:20])
        assert len(running.server.server_state.connections) <= 8
        busy.send(data[10:])
        assert busy.getresponse().status == 200
        for connection in [busy, *idle]:
            connection.close()


@pytest.mark.parametrize(
    ("files", "connections"), [(64, 32), (1024, 760), (20_000, 1024), (resource.RLIM_INFINITY, 1024)]
)
def test_connections_leave_files_free(files, connections, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert server_module.connection_limit(num_decoders=2) == connections


def test_log_lines_of_one_kind_are_limited():
    throttle = server_module.LogThrottle(lines=2, seconds=0.1)

    def passes(message, *arguments):
        record = logging.LogRecord("alexnet.serve", logging.WARNING, "", 0, message, arguments, None)
        return record.getMessage() if throttle.filter(record) else None

    assert [passes("host %d", number) for number in range(4)] == ["host 0", "host 1", None, None]
    assert passes("another") == "another"
    time.sleep(0.11)
    assert "(2 more " in passes("host %d", 4)
    assert passes("host %d", 5) == "host 5"


# ---------------------------------------------------------------- HTTP


def test_a_request_with_two_lengths_is_the_last_of_its_connection(small):
    smuggled = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(
            b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % len(smuggled) + smuggled
        )
        answer = b""
        while part := connection.recv(10_000):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1 and b"ready" not in answer
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("path", ["/", "/index.html", "/health/live", "/api/description", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(small, path):
    head, get = small.ask("HEAD", path), small.get(path)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert path == "/metrics" or head.headers["Content-Length"] == str(len(get.body))
    assert small.ask("HEAD", "/api/predict").status == 405

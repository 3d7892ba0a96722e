"""`alexnet serve` as a process: it begins, answers, and ends as it was told to."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from serving_stand_ins import color_checkpoint, picture

from alexnet import cli


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return color_checkpoint(tmp_path_factory.mktemp("checkpoint") / "colours.pt")


@contextmanager
def served(*arguments, folder, launcher=()):
    """The process, and what it printed when it was ready."""
    command = [*launcher, sys.executable, "-m", "alexnet", "serve", *map(str, arguments), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            lines = []
            while not lines or lines[-1] != "}\n":
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr.read()
            yield process, json.loads("".join(lines))
        finally:
            process.kill()


def connect(record):
    host, port = record["url"].removeprefix("http://").rstrip("/").split(":")
    return http.client.HTTPConnection(host, int(port), timeout=60)


def test_what_was_asked_before_the_end_is_answered_and_the_exit_code_is_0(checkpoint, tmp_path):
    data = picture("green")
    with served(checkpoint, "--decoders", 1, folder=tmp_path) as (process, record):
        assert record["networks"] == ["colours"]
        connection, idle = connect(record), connect(record)
        idle.request("GET", "/health/ready")
        assert idle.getresponse().read() == b'{"status":"ready"}'
        connection.putrequest("POST", "/api/predict")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders()
        connection.send(data[:20])
        idle.request("GET", "/metrics")
        while b"\nalexnet_requests_inside 1\n" not in idle.getresponse().read():
            time.sleep(0.02)
            idle.request("GET", "/metrics")
        process.send_signal(signal.SIGTERM)
        until_refused(record)
        connection.send(data[20:])
        answer = json.loads(connection.getresponse().read())
        assert answer["networks"][0]["guesses"][0]["name"] == "green"
        connection.close()
        idle.close()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "All requests are answered; the server has ended."
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def until_refused(record):
    """Wait until nobody new is let in."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        connection = connect(record)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return
        finally:
            connection.close()
        time.sleep(0.05)
    raise AssertionError("the server goes on taking connections")


def test_interrupting_from_the_keyboard_ends_it_too(checkpoint, tmp_path):
    with served(checkpoint, "--decoders", 1, "--quiet", folder=tmp_path) as (process, _):
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_mistakes_are_told_in_a_sentence(checkpoint, tmp_path, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        mistakes = {
            (tmp_path / "nothing.pt",): "no checkpoint",
            (checkpoint, "--port", port): f"Port {port} is in use; give another with --port",
            (checkpoint, "--host", "192.0.2.7"): "no address of this machine",
            (checkpoint, "--data", tmp_path / "nowhere"): "does not exist",
            (checkpoint, "--views", "all"): "center, flip, ten_crop",
        }
        for arguments, part in mistakes.items():
            rest = [] if "--port" in arguments else ["--port", 0]
            monkeypatch.setattr(sys, "argv", ["alexnet", "serve", *map(str, [*arguments, *rest])])
            with pytest.raises(SystemExit) as caught:
                cli.main()
            printed = capsys.readouterr()
            assert (caught.value.code, printed.out) == (2, "")
            assert printed.err.startswith("error: ") and part in printed.err

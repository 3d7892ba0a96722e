"""The load that is put on a server, and what is made of it."""

import json
import sys
from contextlib import contextmanager

import pytest
from serving_stand_ins import color_checkpoint, picture, running_server

from alexnet import cli
from alexnet.benchmark import serving
from alexnet.benchmark.load import Load, put_load, read_metric
from alexnet.benchmark.serving import Contestant
from alexnet.benchmark.untrained import save_untrained
from alexnet.errors import UserError
from alexnet.evaluation.predictor import load_predictor, predict
from alexnet.serve.settings import Settings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return color_checkpoint(tmp_path_factory.mktemp("checkpoint") / "colours.pt")


@pytest.fixture(scope="module")
def server(checkpoint):
    with running_server([checkpoint], settings=Settings(num_decoders=1, max_requests=4)) as running:
        yield running


def test_clients_ask_as_often_as_they_are_told(server):
    load = put_load(server.url, [picture("red"), picture("blue")], 3, num_requests=10)
    assert (len(load.latencies), load.failures, load.num_clients) == (10, [], 3)
    assert load.per_second == pytest.approx(10 / load.seconds)
    assert all(0 < latency <= load.seconds for latency in load.latencies)
    assert read_metric(server.url, "alexnet_images_total") == 10
    assert read_metric(server.url, "alexnet_nothing") is None
    short = put_load(server.url, [picture("red")], 2, seconds=0.0)
    assert len(short.latencies) == 2


def test_refusals_are_failures_and_no_answers(server):
    load = put_load(server.url, [b"nonsense"], 2, num_requests=4)
    assert load.latencies == [] and len(load.failures) == 4
    assert load.failures[0].startswith("415: ") and "not an image" in load.failures[0]
    gone = put_load("http://127.0.0.1:9/", [b""], 1, num_requests=3)
    assert gone.latencies == [] and "ConnectionRefusedError" in gone.failures[0]


def test_rates_are_medians_of_blocks_and_latencies_of_all_requests():
    blocks = [Load(1, 2.0, [0.1] * 10), Load(1, 1.0, [0.2] * 9 + [0.9]), Load(1, 4.0, [0.1] * 10)]
    contestant = Contestant("batching", 32, {1: blocks})
    assert contestant.rate(1) == 5.0
    assert (contestant.latency_ms(1, 0.5), contestant.latency_ms(1, 0.95)) == (100.0, 200.0)
    assert contestant.to_dict()["clients"]["1"]["images_per_second_spread"] == [2.5, 10.0]


def test_the_command_measures_both_servers_and_the_memory(server, checkpoint, monkeypatch, capsys, tmp_path):
    started = []

    @contextmanager
    def running(arguments):
        started.append(arguments)
        yield server.url

    monkeypatch.setattr(serving, "running_server", running)
    monkeypatch.setattr(serving, "WARM_UP_SECONDS", 0.0)
    output = tmp_path / "record.json"
    options = ["--clients", "1,2", "--rounds", "2", "--seconds", "0.1", "--memory-requests", "20"]
    call = ["alexnet", "benchmark", "serve", str(checkpoint), *options, "--output", str(output), "--quiet"]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert "colours; photographs of 500 x 375 px" in printed and "over 20 requests" in printed
    assert [arguments[arguments.index("--batch-size") + 1] for arguments in started] == ["32", "1"]
    record = json.loads(output.read_text())
    assert set(record["gain_by_batching"]) == {"1", "2"} and len(record["memory_bytes"]) == 21
    assert record["images_per_second"] == record["contestants"][0]["clients"]["2"]["images_per_second"]


@pytest.mark.parametrize("clients", ["", "0", "1,x", "1,,2", "5000"])
def test_numbers_of_clients_that_cannot_be_are_refused(clients, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet", "benchmark", "serve", "--clients", clients])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2 and "1,8,64" in capsys.readouterr().err


def test_an_untrained_checkpoint_can_be_used_like_any_other(tmp_path):
    path = save_untrained(tmp_path / "untrained.pt", "cifar_quick", num_classes=7)
    (prediction,) = predict(load_predictor(path, device="cpu"), picture("red"), top=7)
    assert sum(guess.probability for guess in prediction.guesses) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError):
        save_untrained(tmp_path / "other.pt", "no-such-model")

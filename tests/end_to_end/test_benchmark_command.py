"""`alexnet benchmark` as a person types it. Nothing here depends on how fast the machine is."""

import json
import sys

import pytest
from command_processes import run_process

from alexnet import cli

TINY = ["--model", "cifar_quick", "--batch-size", "4", "--rounds", "1", "--threads", "1"]


def benchmark(*arguments):
    return run_process("benchmark", *arguments)


def test_training_beside_the_textbook_as_json(tmp_path):
    file = tmp_path / "records" / "speed.json"
    result = benchmark("train", *TINY, "--baselines", "textbook", "--json", "--output", str(file))
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)  # one object, and nothing besides
    assert json.loads(file.read_text()) == record
    assert record["images_per_second"] > 0
    low, high = record["images_per_second_spread"]
    assert low == record["images_per_second"] == high  # one round
    assert list(record["phases_ms"]) == ["input", "forward", "backward", "update"]
    assert all(milliseconds > 0 for milliseconds in record["phases_ms"].values())
    assert (record["task"], record["model"], record["batch_size"]) == ("train", "cifar_quick", 4)
    assert (record["rounds"], record["threads"]) == (1, 1)
    assert record["precision"] in ("float32", "bfloat16")
    (textbook,) = record["baselines"]
    assert textbook["name"] == "textbook" and textbook["settings"].startswith("float32, contiguous")
    assert textbook["ratio"] == pytest.approx(record["images_per_second"] / textbook["images_per_second"])
    assert textbook["peak_memory_bytes"] > 10**7 and record["peak_memory_bytes"] > 10**7
    hardware = record["hardware"]
    assert hardware["matmul_flops_per_second"] > 0 and hardware["copy_bytes_per_second"] > 0
    assert hardware["share_of_matmul"] == pytest.approx(
        record["images_per_second"] * hardware["flops_per_image"] / hardware["matmul_flops_per_second"]
    )
    assert record["left_out"] == []
    assert record["environment"]["threads"] == 1 and record["environment"]["versions"]["torch"]
    assert "Rounds: 1, of ours, textbook; about 0:" in result.stderr


def test_inference_for_people_says_what_is_left_out():
    result = benchmark("inference", *TINY, "--precision", "float32", "--baselines", "textbook,torchvision", "--quiet")
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("cifar_quick, inference, batch 4") and "median of 1 block " in lines[0]
    assert "float32 activations" in lines[1] and "torch 2." in lines[1] and " 1 thread," in lines[1]
    assert [line.split()[0] for line in lines[3:5]] == ["ours", "textbook"] and " x " in lines[4]
    assert lines[5].split() == ["milliseconds", "step", "input", "forward", "first", "step"]
    assert "Hardware limit: " in result.stdout and "GB/s of copying" in result.stdout
    assert lines[-1].startswith("Left out: torchvision: ") and "32" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--baselines", "texbook"], "'texbook'; did you mean 'textbook'"),
        (["train", "--baselines", "onnxruntime"], "alexnet benchmark inference"),
        (["train", "--batch-size", "0"], "--batch-size 0"),
        (["inference", "--rounds", "0"], "--rounds 0"),
        (["inference", "--threads", "0"], "--threads 0"),
        (["train", "--precision", "float64"], "--precision float64"),
        (["train", "--model", "as_ran"], "did you mean 'as_run'"),
        (["train", "--device", "abacus"], "abacus"),
        (["train", "--output", "."], "--output ."),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_measured(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["alexnet", "benchmark", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    assert caught.value.code == 2 and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and words in printed.err

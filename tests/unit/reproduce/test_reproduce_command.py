"""`alexnet reproduce`: what is asked wrongly, what a finished study leaves, and that nothing is trained twice."""

import json
import signal

import pytest
from typer.testing import CliRunner

from alexnet.cli import app
from alexnet.commands.reproduce import reproduce_command
from alexnet.errors import UserError
from alexnet.reproduce.catalogue import STUDIES
from alexnet.reproduce.record import read_runs
from alexnet.reproduce.workbench import Interrupted, Workbench
from alexnet.training.stop_signals import PREEMPTED_EXIT_CODE

SHORT = ("data.max_train_images=64", "train.epochs=1", "train.batch_size=32", "evaluate.batch_size=64")


def reproduce(name, output, *overrides, data="shapes:40", seeds=None, scale="full", as_json=True):
    return reproduce_command([name, *overrides], data, output, seeds=seeds, scale=scale, as_json=as_json, quiet=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar-26"], "needs --data"),
        ([], "Missing argument"),
        (["train.epochs=1"], "one study is expected, 0"),
        (["cifar-26", "cifar-18", "--data", "shapes"], "one study is expected, 2"),
        (["cifar-26", "--data", "shapes", "--seeds", "1,x"], "numbers from 0"),
        (["cifar-26", "--data", "shapes", "--seeds", "-1"], "numbers from 0"),
        (["cifar-26", "--data", "shapes", "--scale", "tiny"], "full or small"),
        (["cifar-26", "--data", "shapes", "--scale", "small"], "no small scale"),
        (["cifar-26", "--data", "no-such-folder"], "no-such-folder"),
        (["cifar-26", "--data", "shapes", "seed=3"], "given with --seeds"),
        (["precision", "runtime.precision=float32"], "precision sets runtime.precision itself"),
        (["figure-1", "--data", "shapes", "schedule.name=constant"], "figure-1 sets schedule.name itself"),
        (["figure-1", "--data", "shapes", "optimizer={lr=0.1}"], "figure-1 sets optimizer itself"),
        (["list", "train.epochs=1"], "trains nothing"),
        (["ledger", "--seeds", "1"], "trains nothing"),
        (["cifar-26", "--data", "shapes", "train.epoch=1"], "train.epochs"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert result.exit_code != 0
    assert message in f"{result.output}{result.exception}"
    assert isinstance(result.exception, (UserError, SystemExit))


def test_the_list_has_every_study(capsys):
    reproduce("list", None)
    assert [study["name"] for study in json.loads(capsys.readouterr().out)["studies"]] == list(STUDIES)
    reproduce("list", None, as_json=False)
    shown = capsys.readouterr().out
    assert [name for name in STUDIES if f"{name}\n" not in shown] == []


def test_a_study_leaves_a_record_and_is_not_done_twice(tmp_path, capsys):
    folder = tmp_path / "study"
    reproduce("cifar-26", folder, *SHORT, seeds="0,1")
    record = json.loads(capsys.readouterr().out)
    assert record["output"] == str(folder) and record["seeds"] == [0, 1] and record["overrides"] == list(SHORT)
    error = record["rows"][0]
    assert error["published"] == 26 and set(error["values"]) == {"0", "1"} and error["status"] == "measured"
    kept = folder / "record"
    written = json.loads((kept / "record.json").read_text())
    assert written == {key: value for key, value in record.items() if key not in ("output", "finished")}
    for seed in (0, 1):
        summary = written["runs"][f"cifar-quick/seed-{seed}"]["summary"]
        assert 100 * summary["top1_error"] == error["values"][str(seed)] and summary["seed"] == seed
    assert not list(kept.rglob("*.pt")), "weights are not part of a record"
    assert f"| test error | 26.00 % | {error['mean']:.2f} % |" in (kept / "README.md").read_text()

    checkpoints = sorted(folder.rglob("last.pt"))
    before = [file.stat().st_mtime_ns for file in checkpoints]
    reproduce("cifar-26", folder, *SHORT, seeds="0,1", as_json=False)
    assert [file.stat().st_mtime_ns for file in checkpoints] == before
    shown = capsys.readouterr().out
    assert "26.00 %" in shown and f"{error['mean']:.2f} %" in shown and "another data set" in shown


def test_a_record_keeps_the_trainings_that_its_numbers_are_of(tmp_path, capsys):
    reproduce("cifar-26", tmp_path, *SHORT, seeds="0,1")
    elsewhere = {"cores": 64, "processor": "other", "devices": [], "command": "alexnet", "versions": {"torch": "2"}}
    (tmp_path / "runs" / "cifar-quick" / "seed-0" / "environment.json").write_text(json.dumps(elsewhere))
    reproduce("cifar-26", tmp_path, *SHORT, seeds="0")
    kept = tmp_path / "record"
    record = json.loads((kept / "record.json").read_text())
    assert list(record["runs"]) == list(read_runs(kept)) == ["cifar-quick/seed-0"]
    assert record["environment"]["cores"] == 64, "of the machine that trained"
    assert "64 cores, other" in (kept / "README.md").read_text()


def test_a_study_that_was_stopped_says_so(tmp_path, capsys, monkeypatch):
    def stop(bench, label, recipe):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(Workbench, "train", stop)
    assert reproduce("cifar-26", tmp_path, *SHORT) == PREEMPTED_EXIT_CODE
    assert json.loads(capsys.readouterr().out) == {"output": str(tmp_path), "finished": False}
    assert not (tmp_path / "record").exists()


def test_settings_that_differ_from_the_folder_are_refused(tmp_path, capsys):
    reproduce("cifar-26", tmp_path, *SHORT, seeds="0")
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        reproduce("cifar-26", tmp_path, *SHORT, "optimizer.lr=0.002", seeds="0")

"""`alexnet doctor` as a person types it, the machine, and the catalogue with its documentation."""

import json
import re
from pathlib import Path

import pytest

from alexnet.doctor import machine
from alexnet.doctor.catalogue import CATALOGUE, catalogue_markdown
from alexnet.doctor.examine import sort_things
from alexnet.doctor.machine import inspect_machine

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def doctor(alexnet):
    """Runs the command; returns (exit code, standard output, standard error)."""
    return lambda *arguments: alexnet("doctor", *arguments)


def test_things_are_told_apart(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.pt").write_bytes(b"x")
    (tmp_path / "mine.toml").write_text("seed = 1\n")
    (tmp_path / "run").mkdir()
    for name in ("config.toml", "metrics.jsonl"):
        (tmp_path / "run" / name).write_text("")
    names = [str(tmp_path / name) for name in ("photos", "a.pt", "mine.toml", "run")]
    things = sort_things([*names, "optimizer.lr=0.1"], ["shapes:32"])
    assert things.data == ["shapes:32", names[0]] and things.checkpoints == [tmp_path / "a.pt"]
    assert things.recipe == names[2] and things.overrides == ["optimizer.lr=0.1"] and things.runs == [tmp_path / "run"]


def test_digits_are_data_a_recipe_or_both(tmp_path):
    def of(*arguments):
        things = sort_things(arguments)
        return things.recipe, things.data

    (tmp_path / "a.pt").write_bytes(b"x")
    assert of("digits") == ("digits", ["digits"])
    assert of("folder", "digits") == ("folder", ["digits"])
    assert of("digits", "shapes:32") == ("digits", ["shapes:32"])
    assert of("digits", str(tmp_path / "a.pt")) == (None, ["digits"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing-here"], "no path and no name"),
        (["nothing-here.toml"], "no path and no name"),
        (["folder:/nowhere/at-all"], "no path and no name"),
        (["--data", "nothing-here"], "no path and no name"),
        (["folder", "paper"], "one recipe"),
        (["a.b=1"], "none is named"),
    ],
)
def test_what_is_nothing_is_refused(doctor, arguments, words):
    code, out, err = doctor(*arguments)
    assert code == 2 and out == "" and words in err


def test_archives_of_images_are_no_checkpoints(tmp_path):
    for name in ("images.tar", "model_best.pth.tar", "weights"):
        (tmp_path / name).write_bytes(b"x")
    things = sort_things([str(path) for path in sorted(tmp_path.iterdir())])
    assert things.data == [str(tmp_path / "images.tar")]
    assert things.checkpoints == [tmp_path / "model_best.pth.tar", tmp_path / "weights"]


def test_an_address_is_data_whatever_is_in_it():
    assert sort_things(["https://host/set?version=2"]).data == ["https://host/set?version=2"]


def test_findings_are_printed_with_evidence_and_remedy_and_make_the_exit_code(doctor, make_data):
    data = make_data({"train/a": 4, "train/b": 4, "val": 3})
    code, out, _ = doctor(data)
    assert code == 1 and "problem flat-validation: All 3 validation images" in out
    assert "      000.png" in out and "    -> Sort them into class folders" in out and "1 problem" in out


def test_a_sound_thing_ends_with_zero(doctor):
    assert doctor("shapes:32") == (0, "Nothing wrong was found.\n", "")


def test_json_is_one_object(doctor, make_data):
    code, out, _ = doctor(make_data({"only": 4}), "--json")
    record = json.loads(out)
    assert code == 1 and record["healthy"] is False and record["counts"]["problem"] == 1
    (problem,) = [item for item in record["findings"] if item["severity"] == "problem"]
    assert problem["id"] == "one-class" and set(problem) == {"id", "severity", "about", "what", "evidence", "remedy"}


def test_a_refused_recipe_is_a_finding_beside_the_others(doctor, make_data):
    code, out, _ = doctor("folder", "optimizer.lrr=1", make_data({"only": 4}))
    assert code == 1 and "recipe-refused: unknown key 'optimizer.lrr'" in out and "one-class" in out


# ---------------------------------------------------------------- the machine


@pytest.fixture
def plain_machine(monkeypatch):
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 8 * 2**30)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**11}))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine.native, "AVAILABLE", True)
    monkeypatch.setattr(machine, "_NVIDIA", Path("/nowhere"))
    monkeypatch.setattr(machine, "choose_device", lambda name: machine.torch.device("cpu"))


def test_a_machine_without_fast_bfloat16_is_healthy(plain_machine, ids, monkeypatch):
    monkeypatch.setattr(machine, "has_fast_bfloat16", lambda device: False)
    assert ids(inspect_machine()) == {"machine": "note", "no-fast-bfloat16": "note"}
    rows = " ".join(inspect_machine()[0].evidence)
    assert all(word in rows for word in ("threads", "memory: 8.0 GB", "disk: 93.1 GB", "kernels", "torch 2."))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("free_memory_bytes", lambda: 2**30, "little-memory"),
        ("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**9}), "little-disk"),
        ("native.AVAILABLE", False, "kernels-missing"),
        ("os.cpu_count", lambda: 64, "few-threads"),
        ("_NVIDIA", ROOT, "cuda-not-used"),
    ],
)
def test_what_a_machine_lacks_is_named(plain_machine, ids, monkeypatch, name, value, expected):
    monkeypatch.setattr(f"alexnet.doctor.machine.{name}", value)
    assert {id for id, severity in ids(inspect_machine()).items() if severity != "note"} == {expected}


# ---------------------------------------------------------------- the catalogue


def test_the_page_is_made_from_the_catalogue():
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert catalogue_markdown().strip() in page, "write it again: python -m alexnet.doctor.catalogue"


def test_every_finding_is_made_somewhere_and_tested_somewhere():
    code = "\n".join(
        path.read_text() for path in (ROOT / "alexnet" / "doctor").glob("*.py") if "catalogue" not in path.name
    )
    tests = "\n".join(path.read_text() for path in (ROOT / "tests" / "unit" / "doctor").glob("*.py"))
    for id in CATALOGUE:
        assert f'"{id}"' in code, id
        assert f'"{id}"' in tests, id


def test_every_finding_that_is_made_is_in_the_catalogue():
    code = "\n".join(path.read_text() for path in (ROOT / "alexnet" / "doctor").glob("*.py"))
    assert set(re.findall(r'finding\(\s*"([a-z0-9-]+)"', code)) <= set(CATALOGUE)

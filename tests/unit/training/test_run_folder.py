"""Whose a run's folder is."""

import subprocess
import sys

import pytest

from alexnet.config import Recipe
from alexnet.config_io import from_toml_text
from alexnet.errors import UserError
from alexnet.training.run_folder import RunFolder

DATA = {"source": "photos", "fingerprint": "abc", "num_train": 10}


def recipe(text=""):
    return from_toml_text(text)


def opened(path, recipe=None, data=DATA, trained=True):
    folder = RunFolder(path)
    folder.open(recipe or Recipe(), data)
    folder.close()
    if trained:
        folder.last_checkpoint.parent.mkdir(exist_ok=True)
        folder.last_checkpoint.touch()
    return folder


def test_a_new_folder_gets_the_recipe(tmp_path):
    folder = opened(tmp_path / "a" / "b", recipe("[optimizer]\nlr = 0.5"))
    assert folder.saved_recipe().optimizer.lr == 0.5


def test_the_same_recipe_and_data_are_let_in_again(tmp_path):
    opened(tmp_path / "run", recipe("seed = 4"))
    opened(tmp_path / "run", recipe("seed = 4"))


@pytest.mark.parametrize(
    "neutral",
    [
        "[runtime]\nnum_workers = 3",
        "[runtime]\nnum_threads = 2",
        "[logging]\ntensorboard = true",
        "[train]\ncheckpoint_minutes = 1",
        "[data]\nmemory_limit_gb = 2.0",
        "[data]\ncache_gb = 3.0",
        "[evaluate]\nbatch_size = 16",
        "[train]\nmicro_batch_size = 16",
    ],
)
def test_settings_without_effect_on_the_result_may_change(tmp_path, neutral):
    opened(tmp_path / "run")
    opened(tmp_path / "run", recipe(neutral))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("seed = 1", ["seed", "0", "1"]),
        ("[optimizer]\nlr = 0.5\n[train]\nepochs = 3", ["optimizer.lr", "train.epochs"]),
        ("[schedule.layers.conv1]\nname = 'constant'", ["schedule.layers.conv1"]),
    ],
)
def test_another_recipe_is_refused_and_says_what_differs(tmp_path, text, names):
    opened(tmp_path / "run")
    with pytest.raises(UserError) as refusal:
        opened(tmp_path / "run", recipe(text))
    assert all(name in str(refusal.value) for name in names) and "--output" in str(refusal.value)


def test_batch_norm_normalises_the_parts_of_a_batch_by_themselves(tmp_path):
    opened(tmp_path / "run", recipe("[model]\nname = 'bn'"))
    opened(tmp_path / "run", recipe("[model]\nname = 'bn'\n[evaluate]\nbatch_size = 16"))
    with pytest.raises(UserError, match=r"train\.micro_batch_size = None there, 16 now"):
        opened(tmp_path / "run", recipe("[model]\nname = 'bn'\n[train]\nmicro_batch_size = 16"))


def test_other_data_are_refused(tmp_path):
    opened(tmp_path / "run")
    with pytest.raises(UserError, match=r"10 training images there.*11 now"):
        opened(tmp_path / "run", data={**DATA, "fingerprint": "abd", "num_train": 11})


def test_a_first_attempt_that_trained_nothing_may_be_mended(tmp_path):
    folder = opened(tmp_path / "run", recipe("seed = 1"), trained=False)
    folder.statistics.write_bytes(b"of other images")
    opened(tmp_path / "run", recipe("[data]\nmax_unreadable = 0.5"), {**DATA, "fingerprint": "other"}, trained=False)
    assert folder.saved_recipe().data.max_unreadable == 0.5
    assert not folder.statistics.exists()


def test_the_best_weights_of_another_run_are_never_thrown_away(tmp_path):
    # Killed after an evaluation and before the first resumable checkpoint.
    folder = opened(tmp_path / "run", recipe("seed = 1"), trained=False)
    folder.best_checkpoint.parent.mkdir()
    folder.best_checkpoint.write_bytes(b"weights")
    with pytest.raises(UserError, match="seed"):
        opened(tmp_path / "run", recipe("seed = 2"), trained=False)
    opened(tmp_path / "run", recipe("seed = 1"), trained=False)
    assert folder.best_checkpoint.read_bytes() == b"weights"


def test_an_earlier_checkpoint_is_a_result_too(tmp_path):
    # Somebody has deleted last.pt and best.pt: the run would go on from the one before.
    folder = opened(tmp_path / "run", recipe("seed = 1"), trained=False)
    folder.last_checkpoint.parent.mkdir()
    folder.last_checkpoint.with_name("last-1.pt").touch()
    assert [file.name for file in folder.resumable()] == ["last-1.pt"]
    with pytest.raises(UserError, match="seed"):
        opened(tmp_path / "run", recipe("seed = 2"), trained=False)
    with pytest.raises(UserError, match="the data"):
        opened(tmp_path / "run", recipe("seed = 1"), {**DATA, "fingerprint": "other"}, trained=False)


def test_a_damaged_description_is_named(tmp_path):
    folder = opened(tmp_path / "run")
    folder.data.write_text("{")
    with pytest.raises(UserError, match=r"data\.json is damaged"):
        opened(tmp_path / "run")


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        opened(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir() if item.name[0] != ".") == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        opened(tmp_path / "run")


def test_torn_files_of_a_killed_process_are_removed(tmp_path):
    folder = opened(tmp_path / "run")
    torn = folder.last_checkpoint.parent / ".last.pt.123.tmp"
    torn.write_bytes(b"half")
    opened(tmp_path / "run")
    assert not torn.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock on Windows")
def test_two_processes_cannot_write_to_one_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(Recipe(), DATA)
    code = f"""
from alexnet.config import Recipe
from alexnet.training.run_folder import RunFolder
from pathlib import Path
RunFolder(Path({str(tmp_path / "run")!r})).open(Recipe(), {DATA!r})
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Another process is training" in other.stderr
    folder.close()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0

"""Which file a run's folder means, and which weights a checkpoint says that it has."""

import json
from dataclasses import replace

import pytest
import torch

from alexnet.errors import UserError
from alexnet.training.checkpoint import load_checkpoint, save_checkpoint
from alexnet.training.checkpoint_files import checkpoint_file, checkpoint_files, run_folder, selection_of


@pytest.fixture
def run(tmp_path, checkpoint):
    """A run's folder with two checkpoints, after 70 and after 60 steps."""
    folder = tmp_path / "run"
    save_checkpoint(folder / "checkpoints" / "last.pt", replace(checkpoint, step=70, selection="last"))
    save_checkpoint(folder / "checkpoints" / "best.pt", replace(checkpoint, step=60, selection="best"))
    return folder


def summarize(folder, selection):
    (folder / "summary.json").write_text(json.dumps({"checkpoint": selection}))


def configure(folder, selection):
    (folder / "config.toml").write_text(f'[evaluate]\ncheckpoint = "{selection}"\n')


@pytest.mark.parametrize(
    ("summary", "config", "meant"),
    [
        (None, None, "last"),
        ("last", "last", "last"),
        ("best", "best", "best"),
        (None, "best", "best"),  # of an unfinished run, what its final evaluation will be of
        (None, "last", "last"),
        ("best", None, "best"),
        (3, None, "last"),
        (["best"], None, "last"),
    ],
)
def test_a_run_means_the_weights_of_its_final_evaluation(run, summary, config, meant):
    if summary is not None:
        summarize(run, summary)
    if config is not None:
        configure(run, config)
    other = "best" if meant == "last" else "last"
    folder = run / "checkpoints"
    assert checkpoint_files(run) == [folder / f"{meant}.pt", folder / f"{other}.pt"]
    assert checkpoint_file(run) == folder / f"{meant}.pt"
    loaded = load_checkpoint(run)
    assert (loaded.selection, loaded.step) == (meant, {"last": 70, "best": 60}[meant])
    (folder / f"{meant}.pt").unlink()
    instead = load_checkpoint(run)
    assert (instead.selection, instead.step) == (other, {"last": 70, "best": 60}[other])


def test_a_damaged_summary_does_not_hide_the_recipe(run):
    (run / "summary.json").write_text("{")
    configure(run, "best")
    assert load_checkpoint(run).selection == "best"


def test_files_of_earlier_versions_are_known_by_their_names(run, tmp_path):
    for name, selection in (("last", "last"), ("best", "best"), ("last-1", "last"), ("mine", None)):
        contents = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
        contents.pop("selection", None)
        torch.save(contents, run / "checkpoints" / f"{name}.pt")
        assert load_checkpoint(run / "checkpoints" / f"{name}.pt").selection == selection
    torch.save(contents, tmp_path / "best.pt")  # not in the folder of a run
    assert load_checkpoint(tmp_path / "best.pt").selection is None


def test_a_copy_still_says_which_weights_it_has(run, tmp_path):
    (tmp_path / "mine.pt").write_bytes((run / "checkpoints" / "best.pt").read_bytes())
    assert load_checkpoint(tmp_path / "mine.pt").selection == "best"


def test_a_selection_that_there_is_not_is_refused(run):
    contents = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    torch.save({**contents, "selection": "luckiest"}, run / "checkpoints" / "last.pt")
    with pytest.raises(UserError):
        load_checkpoint(run)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        checkpoint_file(tmp_path / "empty")


def test_what_a_files_name_says(tmp_path):
    assert selection_of(tmp_path / "checkpoints" / "last-2.pt") == "last"
    assert selection_of(tmp_path / "checkpoints" / "lasting.pt") is None
    assert run_folder(tmp_path / "run" / "checkpoints" / "best.pt") == tmp_path.resolve() / "run"
    assert run_folder(tmp_path / "best.pt") is None

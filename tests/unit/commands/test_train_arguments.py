"""What `alexnet train` makes of its arguments."""

import json
from pathlib import Path

import pytest

from alexnet.commands.output import json_text
from alexnet.commands.train import choose_data, choose_output, split_arguments, train_command
from alexnet.errors import UserError
from alexnet.training.run import RunSummary


@pytest.mark.parametrize(
    ("arguments", "recipe", "overrides"),
    [
        ([], None, []),
        (["folder"], "folder", []),
        (["seed=1"], None, ["seed=1"]),
        (["seed=1", "folder", "a.b=c=d"], "folder", ["seed=1", "a.b=c=d"]),
        (["recipes/mine.toml", "seed=1"], "recipes/mine.toml", ["seed=1"]),
    ],
)
def test_an_argument_with_an_equals_sign_is_an_override(arguments, recipe, overrides):
    assert split_arguments(arguments) == (recipe, overrides)


def test_a_file_with_an_equals_sign_in_its_path_is_a_recipe(tmp_path):
    file = tmp_path / "lr=0.1.toml"
    file.write_text("seed = 1\n")
    assert split_arguments([str(file), "seed=2"]) == (str(file), ["seed=2"])


def test_two_recipes_are_one_too_many():
    with pytest.raises(UserError, match=r"2 were given: folder, photos; data is given with --data"):
        split_arguments(["folder", "photos"])


def test_only_the_digits_recipe_has_data_of_its_own():
    assert choose_data("digits", None) == "digits"
    assert choose_data("digits", "photos") == "photos"
    with pytest.raises(UserError, match=r"recipe mine\.toml needs --data"):
        choose_data("mine.toml", None)


@pytest.mark.parametrize(
    ("recipe", "data", "output"),
    [
        ("digits", "digits", "runs/digits"),
        ("folder", "photos", "runs/folder-photos"),
        ("folder", "/home/ada/My photos/", "runs/folder-My-photos"),
        ("recipes/mine.toml", "digits", "runs/mine-digits"),
        ("cifar-quick", "cifar10:/data/cifar-10-batches-py", "runs/cifar-quick-cifar-10-batches-py"),
        ("cifar-quick", "shapes:64", "runs/cifar-quick-shapes-64"),
    ],
)
def test_a_run_is_named_for_recipe_and_data(recipe, data, output):
    assert choose_output(recipe, data) == Path(output)


def test_the_present_folder_has_a_name_too(tmp_path, monkeypatch):
    folder = tmp_path / "birds"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert choose_output("folder", ".") == Path("runs/folder-birds")


def test_json_has_no_nan_and_takes_paths():
    record = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": Path("x")}, "e": (1, None)}
    assert json.loads(json_text(record)) == {"a": None, "b": [None, 1.5], "c": {"d": "x"}, "e": [1, None]}


NO_OPTIONS = {"init": None, "freeze": None, "on_stuck": None, "as_json": False, "quiet": True}


@pytest.fixture
def given(monkeypatch):
    """What a command would train, without training it."""
    seen = {}

    def train(recipe, data, output, **options):
        seen.update(recipe=recipe, data=data, output=output, **options)
        return RunSummary(output, finished=True, values={})

    monkeypatch.setattr("alexnet.training.run.train", train)
    return seen


@pytest.mark.parametrize(("data", "recipe"), [(None, "digits"), ("digits", "digits"), ("photos", "folder")])
def test_images_without_a_recipe_are_trained_as_a_folder(given, data, recipe):
    train_command([], data, None, **NO_OPTIONS)
    assert given["recipe"] == recipe


def test_a_network_to_begin_with_means_the_recipe_transfer(given):
    train_command([], "photos", None, **{**NO_OPTIONS, "init": "runs/old"})
    assert (given["recipe"], given["init"], given["output"]) == ("transfer", "runs/old", Path("runs/transfer-photos"))
    train_command(["folder"], "photos", None, **{**NO_OPTIONS, "init": "runs/old"})
    assert given["recipe"] == "folder"
    with pytest.raises(UserError, match="recipe transfer needs --data"):
        train_command([], None, None, **{**NO_OPTIONS, "init": "runs/old"})


def test_a_folder_as_the_recipe_is_told_what_it_is(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a recipe; its images are trained on with folder --data"):
        train_command([str(tmp_path)], None, None, **NO_OPTIONS)


def test_frozen_layers_are_rates_of_zero(given):
    train_command(["folder", "seed=2"], "photos", None, **{**NO_OPTIONS, "freeze": "conv1, conv2"})
    expected = [f"optimizer.layers.{layer}.lr_factor=0.0" for layer in ("conv1", "conv2")]
    assert given["overrides"] == ["seed=2", *expected] and given["init"] is None


@pytest.mark.parametrize("names", ["", "conv1,,conv2", "conv1 conv2", "conv1=0"])
def test_a_list_of_layers_that_is_none_is_refused(given, names):
    with pytest.raises(UserError, match="names of layers with commas"):
        train_command(["folder"], "photos", None, **{**NO_OPTIONS, "freeze": names})
    assert not given


def test_a_recipe_is_checked_before_anything_else(given):
    with pytest.raises(UserError, match="unknown key"):
        train_command(["folder", "optimizer.rate=2"], "photos", None, **NO_OPTIONS)
    assert not given

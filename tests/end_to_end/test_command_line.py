"""The commands as a person types them: what they print, what they refuse and how."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command_processes import run_process
from PIL import Image

from alexnet import cli

TINY = [
    "train.epochs=2",
    "train.batch_size=16",
    "train.micro_batch_size=8",
    "data.max_train_images=64",
    "runtime.num_workers=0",
    "runtime.num_threads=1",
    "runtime.deterministic=true",
    "optimizer.layers.conv1.lr_factor=0.5",
]


def save_image(path, seed=0, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of class folders: two classes, eight noise images each."""
    folder = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("cats", "dogs")):
        for index in range(8):
            save_image(folder / name / f"{index}.png", seed=100 * label + index)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the smallest network on drawn shapes."""
    output = tmp_path_factory.mktemp("runs") / "tiny"
    done = run_process("train", "cifar-quick", "--data", "shapes:32", "--output", output, "--quiet", *TINY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet means quiet"
    return output


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "one.png"
    save_image(path)
    return path


def assert_refused(outcome, *parts, code=2):
    """One message, on standard error, with all of `parts`; nothing on standard output, no traceback."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith(("error: ", "Error: "))]
    assert len(errors) == 1, outcome.err
    for part in parts:
        assert str(part) in outcome.err


# ---------------------------------------------------------------- train


def test_a_run_leaves_everything_that_is_promised(run):
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    promised = {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "data.json",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "summary.json",
        "report.html",
        "evaluation.npz",
    }
    assert promised <= files
    summary = json.loads((run / "summary.json").read_text())
    assert {"top1_error", "top5_error", "num_images", "views", "step", "images_per_second"} <= set(summary)
    assert summary["step"] == 8


def test_train_prints_one_json_object_and_progress_elsewhere(alexnet, tmp_path):
    arguments = ["train", "--json", "cifar-quick", "--data", "shapes:32", "--output", tmp_path / "run"]
    outcome = alexnet(*arguments, *TINY, "train.epochs=1")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["finished"] is True and record["output"] == str(tmp_path / "run")
    assert 0 <= record["top1_error"] <= 1
    assert "Training" in outcome.err


def test_the_same_command_on_a_finished_run_says_so(alexnet, run):
    outcome = alexnet("train", "cifar-quick", "--data", "shapes:32", "--output", run, "--json", *TINY)
    assert outcome.code == 0
    assert json.loads(outcome.out)["step"] == 8
    assert "finished" in outcome.err


def test_overrides_may_stand_anywhere_and_need_no_recipe(alexnet, tmp_path):
    outcome = alexnet("train", "optimizer.lr=0", "--output", tmp_path / "run", "seed=-1")
    assert_refused(outcome, "2 problems", "optimizer.lr", "seed")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimizer.lrr=1"], ["unknown key 'optimizer.lrr'", "did you mean 'optimizer.lr'?"]),
        (["train.batch_size=many"], ["train.batch_size", "must be a whole number"]),
        (["digit"], ["no recipe is named 'digit'", "did you mean 'digits'?"]),
        (["digits", "folder"], ["one recipe is expected, 2 were given"]),
        (["folder"], ["recipe folder needs --data"]),
        (["no/such/recipe.toml"], ["no/such/recipe.toml does not exist"]),
        (["folder", "--data", "no/such/folder"], ["no/such/folder"]),
        (["folder", "--data", "folders:."], ["folders"]),
        (["--data", "shapes:zero"], ["shapes:zero"]),
        (["--bach-size", "3"], ["--bach-size"]),
        (["cifar-quick", "--data", "digits", "runtime.device=gpu"], ["the device 'gpu'", "torch knows no such device"]),
        (["cifar-quick", "--data", "digits", "schedule.layers.conv9.freeze_epoch=1"], ["conv9", "conv1"]),
        (["cifar-quick", "--data", "digits", "optimizer.layers.conv9.lr_factor=0"], ["conv9", "conv1"]),
        (["digits", "model.image_size=20"], ["as_run", "20"]),
        (["digits", "data.image_size=100"], ["data.image_size", "224"]),
        (["digits", "model.num_classes=3"], ["model.num_classes", "10 classes"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_train_refuses_a_mistake_before_it_writes_anything(alexnet, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert_refused(alexnet("train", *arguments), *says)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_train_refuses_a_recipe_that_is_not_toml(alexnet, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("seed = 1\n[model\nname = 3\n")
    assert_refused(alexnet("train", recipe, "--data", "digits"), recipe, "line 2")


def test_train_refuses_folders_without_images(alexnet, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    output = ["--output", tmp_path / "run"]
    assert_refused(alexnet("train", "folder", "--data", empty, *output), empty)
    for name in ("a", "b"):
        (empty / name).mkdir()
    assert_refused(alexnet("train", "folder", "--data", empty, *output), empty)


def test_train_refuses_one_class(alexnet, tmp_path):
    for index in range(6):
        save_image(tmp_path / "photos" / "cats" / f"{index}.png", seed=index)
    arguments = ["train", "folder", "--data", tmp_path / "photos", "--output", tmp_path / "run"]
    assert_refused(alexnet(*arguments), "class")


def test_train_refuses_another_runs_folder_and_says_what_differs(alexnet, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    outcome = alexnet("train", "cifar-quick", "--data", "shapes:32", "--output", run, *TINY, "optimizer.lr=0.5")
    assert_refused(outcome, run, "optimizer.lr", "0.001", "0.5")
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_train_refuses_an_output_that_is_not_its_own(alexnet, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    arguments = ["train", "cifar-quick", "--data", "shapes:32", *TINY, "--output"]
    assert_refused(alexnet(*arguments, tmp_path), "thesis.tex")
    assert_refused(alexnet(*arguments, tmp_path / "thesis.tex"), "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_truncated_image_is_left_out_and_too_many_are_refused(alexnet, photos, tmp_path):
    folder = tmp_path / "photos"
    for path in photos.rglob("*.png"):
        copy = folder / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    small = [
        "model.name=cifar_quick",
        "data.image_size=32",
        "train.min_steps=1",
        "train.epochs=1",
        "runtime.num_threads=1",
    ]
    damaged = folder / "cats" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    arguments = ["train", "folder", "--data", folder, "--output", tmp_path / "run", "data.max_unreadable=0.5", *small]
    outcome = alexnet(*arguments)
    assert outcome.code == 0, outcome.err
    assert "cats/0.png" in outcome.err
    assert "cats/0.png" in (tmp_path / "run" / "data.json").read_text()
    arguments = ["train", "folder", "--data", folder, "--output", tmp_path / "strict", "data.max_unreadable=0", *small]
    assert_refused(alexnet(*arguments, "--quiet"), "cats/0.png")


# ---------------------------------------------------------------- evaluate


def test_evaluate_states_its_protocol(alexnet, run, tmp_path):
    file = tmp_path / "deep" / "record.json"
    outcome = alexnet("evaluate", run, "--views", "flip", "--json", "--quiet", "--output", file)
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert outcome.err == ""
    assert json.loads(file.read_text()) == record
    assert (record["views"], record["split"], record["data"]) == ("flip", "val", "shapes:32")
    (checkpoint,) = record["checkpoints"]
    assert (checkpoint["path"], checkpoint["checkpoint"], checkpoint["model"], checkpoint["seed"]) == (
        str(run / "checkpoints" / "last.pt"),
        "last",
        "cifar_quick",
        0,
    )
    assert checkpoint["step"] == 4 * checkpoint["epoch"]
    low, high = record["top1_interval"]
    assert low <= record["top1_error"] <= high


def test_evaluate_agrees_with_the_end_of_the_training(alexnet, run):
    summary = json.loads((run / "summary.json").read_text())
    outcome = alexnet("evaluate", run, "--json", "--quiet")
    record = json.loads(outcome.out)
    for key in ("top1_error", "top5_error", "num_images", "views"):
        assert record[key] == summary[key]


def test_evaluate_splits_a_folder_as_the_training_did(alexnet, photos, tmp_path):
    sizes = ["model.name=cifar_quick", "data.image_size=32", "train.min_steps=1", "train.epochs=1"]
    held_out = ["data.val_fraction=0.4", "data.split_seed=3", "runtime.num_threads=1"]
    arguments = ["train", "folder", "--data", photos, "--output", tmp_path / "run", *sizes, *held_out]
    trained = alexnet(*arguments, "--json")
    assert trained.code == 0, trained.err
    record = json.loads(alexnet("evaluate", tmp_path / "run", "--json").out)
    assert record["num_images"] == json.loads(trained.out)["num_images"] == 6
    keys = np.load(tmp_path / "run" / "evaluation.npz", allow_pickle=False)["keys"]
    assert {mistake["key"] for mistake in record["worst_mistakes"]} <= set(keys.tolist())


def test_evaluate_prints_a_result_with_its_interval_and_an_ensemble(alexnet, run):
    best, last = run / "checkpoints" / "best.pt", run / "checkpoints" / "last.pt"
    outcome = alexnet("evaluate", best, last, "--views", "center", "--split", "train")
    assert outcome.code == 0, outcome.err
    assert "an ensemble of 2 networks" in outcome.out
    assert "95 % interval" in outcome.out and "(train), center views" in outcome.out


def test_evaluate_refuses_mistakes(alexnet, run, photos, image, tmp_path):
    assert_refused(alexnet("evaluate", tmp_path / "no.pt"), tmp_path / "no.pt")
    assert_refused(alexnet("evaluate", image), image, "not a checkpoint")
    assert_refused(alexnet("evaluate", tmp_path), tmp_path)
    assert_refused(alexnet("evaluate", run, "--views", "twelve"), "center, flip, ten_crop", "'twelve'")
    assert_refused(alexnet("evaluate", run, "--split", "test"), "train or val", "'test'")
    assert_refused(alexnet("evaluate", run, "--data", tmp_path / "nothing"), tmp_path / "nothing")
    assert_refused(alexnet("evaluate", run, "--data", photos), "does not know the class", "'cats'")
    assert_refused(alexnet("evaluate", run, "--output", tmp_path), tmp_path, "folder")
    assert_refused(alexnet("evaluate", run, "--device", "gpu"), "'gpu'")
    assert alexnet("evaluate").code == 2


# ---------------------------------------------------------------- predict


def test_predict_names_what_is_in_images(alexnet, run, image):
    outcome = alexnet("predict", run / "checkpoints" / "best.pt", image, "--top", "3")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].endswith(", best weights") and lines[1] == str(image) and len(lines) == 5
    assert all("%" in line for line in lines[2:])


def test_predict_goes_on_after_an_image_that_cannot_be_read(alexnet, run, image, tmp_path):
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(image.read_bytes()[:100])
    missing = tmp_path / "missing.jpg"
    outcome = alexnet("predict", run, truncated, image, missing, "--json")
    assert outcome.code == 2
    first, second, third = json.loads(outcome.out)["predictions"]
    assert first["error"] and not first["guesses"]
    assert second["error"] is None and len(second["guesses"]) == 5
    assert third["error"]
    assert [line.startswith("error: ") for line in outcome.err.splitlines()] == [True, True]
    assert str(missing) in outcome.err and str(truncated) in outcome.err


def test_predict_reads_a_list_of_paths_from_standard_input(run, photos):
    paths = sorted(photos.rglob("*.png"))[:3]
    done = run_process("predict", run, "-", "--json", input="\n".join(map(str, paths)))
    assert done.returncode == 0, done.stderr
    assert [entry["input"] for entry in json.loads(done.stdout)["predictions"]] == [str(path) for path in paths]


def test_predict_refuses_mistakes(alexnet, run, image, tmp_path):
    assert_refused(alexnet("predict", tmp_path / "no.pt", image), "no.pt")
    assert_refused(alexnet("predict", image, image), "not a checkpoint")
    assert_refused(alexnet("predict", run, image, "--views", "six"), "six")
    assert_refused(alexnet("predict", run, tmp_path / "missing.jpg"), "missing.jpg")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(alexnet("predict", run, empty), empty, "no image")
    assert_refused(alexnet("predict", run, image, "--top", "0"), "--top")
    assert alexnet("predict", run).code == 2


# ---------------------------------------------------------------- info


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("as_run", 60_965_224), ("paper", 60_965_224), ("one_tower", 62_378_344), ("torchvision", 61_100_840)],
)
def test_info_counts_parameters(alexnet, name, parameters):
    outcome = alexnet("info", name, "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["parameters"] == parameters
    assert sum(layer["share"] for layer in record["layers"]) == pytest.approx(1)


def test_info_prints_the_layers_of_a_variant(alexnet):
    outcome = alexnet("info", "paper")
    assert "60,965,224" in outcome.out and "724,406,816" in outcome.out
    assert "96 x 55 x 55" in outcome.out


def test_info_of_another_size_and_number_of_classes(alexnet):
    record = json.loads(alexnet("info", "as_run", "--num-classes", "10", "--image-size", "256", "--json").out)
    layers = {layer["name"]: layer for layer in record["layers"]}
    assert layers["fc8"]["output_shape"] == [10]
    assert layers["conv1"]["output_shape"][0] == 96 and layers["conv1"]["output_shape"][1] > 55


def test_info_prints_what_differs(alexnet):
    outcome = alexnet("info", "as_run", "paper", "--json")
    rows = json.loads(outcome.out)["differences"]
    stds = {row["layer"]: (row["a"], row["b"]) for row in rows if row["field"] == "initial_std"}
    assert stds == {"conv3": (0.03, 0.01), "conv4": (0.03, 0.01), "conv5": (0.03, 0.01)}
    assert "initial_std" in alexnet("info", "as_run", "paper").out
    assert "the same network" in alexnet("info", "paper", "paper").out


def test_info_prints_the_card_of_a_checkpoint_and_of_a_run(alexnet, run):
    outcome = alexnet("info", run)
    assert outcome.code == 0, outcome.err
    assert "shapes:32" in outcome.out and "top-1 error" in outcome.out and "cifar_quick" in outcome.out
    record = json.loads(alexnet("info", run / "checkpoints" / "last.pt", "--json").out)
    assert (record["resumable"], record["step"], record["model"]) == (True, 8, "cifar_quick")


def test_info_refuses_mistakes(alexnet, image, tmp_path):
    assert_refused(alexnet("info", "as-run"), "did you mean 'as_run'?")
    assert_refused(alexnet("info", tmp_path), tmp_path)
    assert_refused(alexnet("info", image), "not a checkpoint")
    assert_refused(alexnet("info", "as_run", "--image-size", "20"), "20")
    assert_refused(alexnet("info", "as_run", "alexnot"), "'alexnot'")


# ---------------------------------------------------------------- recipe, report, and the rest


def test_what_recipe_show_prints_is_that_recipe(alexnet, tmp_path):
    outcome = alexnet("recipe", "show", "cifar-quick", "seed=5")
    (tmp_path / "mine.toml").write_text(outcome.out)
    shown = json.loads(alexnet("recipe", "show", tmp_path / "mine.toml", "--json").out)
    assert shown["values"]["seed"] == 5
    assert shown["header"].startswith("cifar-quick: ")
    assert "no difference" in alexnet("recipe", "diff", tmp_path / "mine.toml", tmp_path / "mine.toml").out
    rows = json.loads(alexnet("recipe", "diff", "cifar-quick", tmp_path / "mine.toml", "--json").out)["differences"]
    assert rows == [{"key": "seed", "a": 0, "b": 5}]
    table = alexnet("recipe", "diff", "as-run-2012", "as-run-2012-no-lrn").out
    assert "model.without" in table and "[norm1, norm2, cnorm2]" in table


def test_recipe_list_and_validate(alexnet):
    listed = json.loads(alexnet("recipe", "list", "--json").out)["recipes"]
    assert "as-run-2012" in alexnet("recipe", "list").out
    for entry in listed:
        assert alexnet("recipe", "validate", entry["name"]).out == f"{entry['name']}: valid\n"
    assert_refused(alexnet("recipe", "validate", "paper", "optimizer.lrr=1"), "optimizer.lr")
    assert_refused(alexnet("recipe", "validate", "seed=1"), "name a recipe")
    assert_refused(alexnet("recipe", "show", "papers"), "did you mean 'paper'?")
    assert_refused(alexnet("recipe", "diff", "paper", "x.toml"), "x.toml")


def test_report_is_written_again(alexnet, run):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    outcome = alexnet("report", run)
    assert outcome.out == f"{run / 'report.html'}\n"
    assert len((run / "report.html").read_bytes()) == pytest.approx(len(before), rel=0.2)


def test_report_refuses_what_is_no_run(alexnet, tmp_path):
    assert_refused(alexnet("report", tmp_path), tmp_path, "config.toml")
    assert_refused(alexnet("report", tmp_path / "nothing"), tmp_path / "nothing")


def test_version_and_help():
    from alexnet._version import __version__

    assert run_process("--version").stdout == f"alexnet {__version__}\n"
    helped = run_process("train", "--help")
    assert helped.returncode == 0 and "alexnet train folder --data photos" in helped.stdout
    assert run_process("trian").returncode == 2


def test_a_closed_pipe_is_not_an_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "alexnet", "recipe", "show", "paper"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write_end)
    assert done.stderr == ""


def test_a_full_disk_is_a_failed_run_with_the_way_on(alexnet, monkeypatch):
    import errno

    from alexnet.commands import recipe

    def no_space(**_):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl")

    monkeypatch.setattr(recipe, "list_command", no_space)
    assert_refused(alexnet("recipe", "list"), "disk is full", "metrics.jsonl", "same command", code=1)


def test_out_of_memory_is_a_failed_run_with_a_remedy(alexnet, monkeypatch):
    from alexnet.commands import recipe

    def no_memory(**_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore")

    monkeypatch.setattr(recipe, "list_command", no_memory)
    assert_refused(alexnet("recipe", "list"), "out of memory", "train.micro_batch_size", code=1)


def test_a_bug_keeps_its_traceback(alexnet, monkeypatch):
    from alexnet.commands import recipe

    def bug(**_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(recipe, "list_command", bug)
    monkeypatch.setattr(sys, "argv", ["alexnet", "recipe", "list"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()

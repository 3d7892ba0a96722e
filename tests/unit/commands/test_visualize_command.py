import ast
import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from seeing_stand_ins import give, write_checkpoint, write_data_set

from alexnet.commands import visualize, visualize_images
from alexnet.commands.visualize import Options
from alexnet.data.shapes import CLASSES, draw_shape
from alexnet.errors import UserError
from alexnet.training.checkpoint import load_model

NAMES = [name.replace("_", " ") for name in CLASSES]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def checkpoint(shapes, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("network") / "small.pt", data=shapes)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for index, size in enumerate(((28, 28), (60, 40), (40, 90))):
        paths.append(folder / f"photograph {index} $x$.png")
        Image.fromarray(draw_shape("val", index, 90)[: size[0], : size[1]]).save(paths[-1])
    return paths


def draw(capsys, checkpoint, what, *words, output):
    assert give("visualize", checkpoint, what, *words, "--output", output, "--json", "--quiet") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["what"] == what and record["output"] == str(output)
    if output.suffix == ".png":
        with Image.open(output) as image:
            image.load()
            assert image.format == "PNG" and min(image.size) > 200
    else:
        assert output.read_text().lstrip().startswith("<?xml") and "<svg" in output.read_text()
    return record


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_kernels(checkpoint, tmp_path, capsys, kind):
    record = draw(capsys, checkpoint, "kernels", output=tmp_path / f"k.{kind}")
    assert [bank["kernels"] for bank in record["banks"]] == [4, 4]
    first = (tmp_path / f"k.{kind}").read_bytes()
    draw(capsys, checkpoint, "kernels", output=tmp_path / f"k.{kind}")
    assert (tmp_path / f"k.{kind}").read_bytes() == first


def test_activations_of_all_layers_and_of_one(checkpoint, photographs, tmp_path, capsys):
    record = draw(capsys, checkpoint, "activations", photographs[1], output=tmp_path / "a.png")
    layers = {name: layer["shape"] for name, layer in record["layers"].items()}
    assert layers["conv1"] == "8 x 11 x 11" and layers["relu7"] == "16" and "drop7" not in layers
    assert len(record["classes"]) == 5 and len(record["layers"]["relu2"]["maps"]) == 16
    words = [photographs[1], "--layer", "relu2", "--top", 2]
    record = draw(capsys, checkpoint, "activations", *words, output=tmp_path / "a.svg")
    assert sorted(record["layers"]["relu2"]["maps"]) == list(range(20)) and len(record["classes"]) == 2


@pytest.mark.parametrize(
    ("what", "words", "num_classes"),
    [
        ("gradcam", [], 3),
        ("gradcam", ["--layer", "conv1", "--top", 1], 1),
        ("gradients", ["--samples", 3, "--seed", 4], 1),
        ("occlusion", ["--patch", 8, "--stride", 8, "--top", 2], 2),
        ("heatmap", ["--side", 40], 1),
    ],
)
def test_pictures_of_images(checkpoint, photographs, tmp_path, capsys, what, words, num_classes):
    record = draw(capsys, checkpoint, what, *photographs, *words, output=tmp_path / "x.png")
    model = load_model(checkpoint)
    assert [image["input"] for image in record["images"]] == [str(path) for path in photographs]
    assert all(len(image["classes"]) == num_classes for image in record["images"])
    inputs = torch.from_numpy(draw_shape("val", 0, 90)[:28, :28][2:26, 2:26].astype(np.float32) - 120)
    with torch.no_grad():
        best = model(inputs.permute(2, 0, 1)[None]).softmax(1)[0].max(dim=0)
    guess = record["images"][0]["classes"][0]
    assert guess["name"] == NAMES[int(best.indices)]
    assert guess["probability"] == pytest.approx(float(best.values), rel=1e-3)


def test_a_class_is_found_by_name_id_and_number(checkpoint, photographs, tmp_path, capsys):
    words = ["--class", "Red Disk", "--class", "dotted_star", "--class", "2"]
    record = draw(capsys, checkpoint, "gradcam", photographs[0], *words, output=tmp_path / "x.png")
    (image,) = record["images"]
    assert [item["class"] for item in image["classes"]] == ["red_disk", "dotted_star", "striped_disk"]
    with pytest.raises(UserError, match="the network knows no class 'read disk'; did you mean 'red disk'"):
        give("visualize", checkpoint, "gradcam", photographs[0], "--class", "read disk", "--output", tmp_path / "y.png")


def test_units_of_a_data_set(checkpoint, shapes, tmp_path, capsys):
    words = ["--data", shapes, "--layer", "conv2", "--unit", 3, "--unit", 0, "--count", 4]
    record = draw(capsys, checkpoint, "units", *words, output=tmp_path / "u.png")
    assert record["num_images"] == 40 and [unit["unit"] for unit in record["units"]] == [3, 0]
    for unit in record["units"]:
        values = [image["value"] for image in unit["images"]]
        assert len(values) == 4 and values == sorted(values, reverse=True)
        for image in unit["images"]:
            field = image["field"]
            assert 0 <= field["top"] < field["bottom"] <= 24 and 0 <= field["left"] < field["right"] <= 24
    # Without --data: of the data of the training.
    words = ["--layer", "fc8", "--count", 3, "--split", "train"]
    assert draw(capsys, checkpoint, "units", *words, output=tmp_path / "v.png")["num_images"] == 20
    with pytest.raises(UserError, match="conv2 has units 0 to 19, and no 20"):
        give("visualize", checkpoint, "units", "--layer", "conv2", "--unit", 20, "--output", tmp_path / "u.png", "-q")


def test_a_map_of_a_data_set(checkpoint, shapes, tmp_path, capsys):
    words = ["--data", shapes, "--count", 25, "--seed", 3]
    record = draw(capsys, checkpoint, "tsne", *words, "--thumbnails", output=tmp_path / "t.png")
    assert len(record["points"]) == 25 and record["num_images"] == 40 and record["layer"] == "relu7"
    assert {point["class"] for point in record["points"]} <= set(CLASSES)
    again = draw(capsys, checkpoint, "tsne", *words, output=tmp_path / "u.svg")
    assert again["points"] == record["points"]
    other = draw(capsys, checkpoint, "tsne", *words[:-1], 4, output=tmp_path / "u.svg")
    assert [point["key"] for point in other["points"]] != [point["key"] for point in record["points"]]


def test_a_map_of_a_file_of_features(checkpoint, shapes, tmp_path, capsys):
    path = tmp_path / "f.npz"
    give("features", checkpoint, shapes, "--split", "val", "--output", path, "--quiet")
    capsys.readouterr()
    record = draw(capsys, checkpoint, "tsne", "--data", path, "--count", 20, output=tmp_path / "t.png")
    images = draw(capsys, checkpoint, "tsne", "--count", 20, output=tmp_path / "t.png")
    assert [point["key"] for point in record["points"]] == [point["key"] for point in images["points"]]
    for words, message in (
        (["--layer", "fc8"], "--layer and --split need images"),
        (["--thumbnails"], "--thumbnails needs the images"),
    ):
        with pytest.raises(UserError, match=message):
            give("visualize", checkpoint, "tsne", "--data", path, *words, "--output", tmp_path / "t.png", "--quiet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gradcm", "a.png"], "WHAT is one of kernels, activations, .*, not 'gradcm'; did you mean gradcam?"),
        (["kernels", "--layer", "conv2"], "--layer has no effect on kernels; it takes no options of its own"),
        (
            ["gradcam", "a.png", "--class", "2", "--side", "99"],
            "--side has no effect on gradcam; it takes --class, --layer",
        ),
        (["tsne", "--batch-size", "3", "--patch", "2"], "--patch has no effect on tsne"),
        (["units", "a.png"], "units takes no images .a.png.; give the images with --data"),
        (["gradcam"], "gradcam needs images: alexnet visualize CHECKPOINT gradcam IMAGE --output FILE"),
        (["activations"], "activations needs an image"),
        (["gradcam", "none.png"], "none.png cannot be read: no such file or directory"),
        (["gradcam", "PHOTO", "--layer", "fc7"], "layer fc7 of small has no maps; its layers with maps are conv1"),
        (["gradcam", "PHOTO", "--layer", "conv1", "--layer", "conv2"], "give one --layer"),
        (["activations", "PHOTO", "PHOTO"], "activations shows one image, and 2 are given"),
        (["activations", "PHOTO", "--layer", "fc6"], "small has no layer 'fc6'"),
        (["occlusion", "PHOTO", "--patch", "30"], "a patch of 30 pixels moved by 7 does not fit an image of 24"),
        (["heatmap", "PHOTO", "--side", "20"], "a side of 20 pixels is too short for a network that sees 24"),
        (["units", "--data", "nowhere"], "nowhere does not exist. Give digits, shapes, a folder"),
    ],
)
def test_mistakes_are_told_and_leave_no_picture(checkpoint, photographs, tmp_path, words, message):
    words = [photographs[0] if word == "PHOTO" else word for word in words]
    with pytest.raises(UserError, match=message):
        give("visualize", checkpoint, *words, "--output", tmp_path / "x.png", "--quiet")
    assert list(tmp_path.iterdir()) == []


def test_other_kinds_of_files_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"pictures are written as \.png or \.svg, not as 'x\.jpg'"):
        give("visualize", checkpoint, "kernels", "--output", tmp_path / "x.jpg")
    with pytest.raises(UserError, match="is a folder"):
        give("visualize", checkpoint, "kernels", "--output", tmp_path)


def test_too_many_images_are_refused(checkpoint, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(visualize_images, "MAX_IMAGES", 2)
    with pytest.raises(UserError, match="a picture has room for 2 images, and 3 are given"):
        give("visualize", checkpoint, "gradcam", photographs[0].parent, "--output", tmp_path / "x.png")


def test_every_option_belongs_to_something_that_is_drawn():
    import typer.main

    from alexnet.cli import app

    command = typer.main.get_command(app).commands["visualize"]
    general = {"--output", "--device", "--json", "--quiet", "--help"}
    options = {name for item in command.params for name in item.opts if name.startswith("--")} - general
    assert options == set().union(*(kind.options for kind in visualize._kinds().values()))
    # ... and the help says to what.
    for name, kind in visualize._kinds().items():
        (lines,) = re.findall(rf"^  {name} .*?(?=^  \w|\n\n)", command.epilog, re.MULTILINE | re.DOTALL)
        assert set(re.findall(r"--[a-z-]+", lines)) == kind.options, name


def test_the_documentation_shows_what_works():
    import typer.main

    from alexnet.cli import app

    page = (Path(__file__).resolve().parents[3] / "docs" / "seeing.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    alexnet (.*)$", page, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        command = typer.main.get_command(app).commands[name]
        parsed = command.make_context(name, words)
        if name == "visualize":
            options = Options(layer=tuple(parsed.params["layer"] or ()))
            assert visualize._checked(parsed.params["what"], parsed.params["images"] or [], options)
    for kind in visualize._kinds():
        assert f"**{kind}.**" in page
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert hasattr(importlib.import_module(node.module), alias.name), alias.name
    for module, name in re.findall(r"`(?:alexnet\.visualize` has further `)?(\w+)\.(\w+)`(?=[, ]|\n)", page):
        if importlib.util.find_spec(f"alexnet.visualize.{module}"):
            assert hasattr(importlib.import_module(f"alexnet.visualize.{module}"), name), name

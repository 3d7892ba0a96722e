"""The examples of docs/exports.md, run as they stand."""

import json
import re
from pathlib import Path

import numpy as np
import onnx.utils
import onnxruntime
import pytest
from export_stand_ins import small_checkpoint
from PIL import Image

import alexnet
from alexnet.data.photographs import draw_photograph
from alexnet.training.checkpoint import build_model

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "exports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page's examples find: a photograph, larger than the squares, and two exported files."""
    folder = tmp_path_factory.mktemp("exports")
    Image.fromarray(draw_photograph(3)).save(folder / "cat.jpg", quality=90)
    for suffix in ("onnx", "pt2"):
        alexnet.export(small_checkpoint("cifar_11pct"), folder / f"photos.{suffix}")
    return folder


@pytest.mark.parametrize("size", [None, (20, 31)], ids=["shrinking", "enlarging"])
def test_the_examples_give_what_predict_gives(folder, size, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    if size is not None:
        monkeypatch.setattr(Image, "open", _opening_at(size))
    names = {}
    assert len(BLOCKS) == 2
    exec(BLOCKS[0], names)
    printed = capsys.readouterr().out.splitlines()
    image = np.asarray(Image.open("cat.jpg").convert("RGB"))
    (expected,) = alexnet.predict(small_checkpoint("cifar_11pct"), image)
    assert printed == [f"{guess.probability:.2%} {guess.name}" for guess in expected.guesses]
    by_onnxruntime = names["probabilities"]
    exec(BLOCKS[1], names)
    assert np.abs(names["probabilities"].detach().numpy() - by_onnxruntime).max() < 1e-4
    assert names["names"] == [f"thing {number}" for number in range(7)]


def _opening_at(size):
    opened = Image.open

    def open_at(path):
        return opened(path).resize(size)

    return open_at


def test_a_layer_can_be_cut_out_by_its_name(folder):
    """As the page says of `relu7`."""
    assert 'onnx.utils.extract_model("photos.onnx", "features.onnx", ["images"], ["relu7"])' in PAGE
    onnx.utils.extract_model(str(folder / "photos.onnx"), str(folder / "features.onnx"), ["images"], ["relu4"])
    checkpoint = small_checkpoint("cifar_11pct")
    side = checkpoint.preprocessing.image_size
    squares = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    (found,) = onnxruntime.InferenceSession(folder / "features.onnx").run(None, {"images": squares})
    start = (side - checkpoint.image_size) // 2
    stop = start + checkpoint.image_size
    crops = checkpoint.preprocessing.normalize(_tensor(squares[:, start:stop, start:stop]))
    expected = build_model(checkpoint).output_of("relu4", crops).detach().numpy()
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def _tensor(array):
    import torch

    return torch.from_numpy(array.copy())


def test_the_table_of_keys_is_complete(folder):
    about = onnxruntime.InferenceSession(folder / "photos.onnx").get_modelmeta().custom_metadata_map
    table = PAGE.split("## What the file says about itself")[1].split("## ")[0]
    assert set(about) == set(re.findall(r"`(\w+)`", "\n".join(line for line in table.splitlines() if line[:1] == "|")))
    assert json.loads(about["preprocessing"])["crop_size"] == 24

"""Folders of classes and files whose names are not UTF-8, steer a terminal or look like mathematics: all commands."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from serving_stand_ins import running_server

from alexnet import cli

CLASSES = [b"$x^{$\x1b[2J<b>", b"caf\xe9", "\u202eevil\n".encode()]
SHOWN = [r"$x^{$\u001b[2J<b>", r"caf\xe9", r"\u202eevil\u000a"]
VALID = ["$x^{$\x1b[2J<b>", r"caf\xe9", "\u202eevil\n"]
"""In JSON, which has its own escapes."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file names are bytes")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a data set in it, in a folder that is not UTF-8 either."""
    root = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for split, count in ((b"train", 8), (b"val", 3)):
            folder = os.path.join(os.fsencode(root), b"ph\xf6tos", split, name)
            os.makedirs(folder)
            for number in range(count):
                pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(os.path.join(folder, b"b\xffld\x1b%d.png" % number))
    return root


@pytest.fixture
def alexnet(place, monkeypatch, capsysbinary):
    """Runs a command in that folder; what it printed, which is UTF-8 and steers no terminal."""
    monkeypatch.chdir(place)

    def give(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["alexnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsysbinary.readouterr()
        assert (caught.value.code or 0) == code, printed.err
        for text in (printed.out.decode(), printed.err.decode()):
            assert not {"\x1b", "\u202e"} & set(text)
        return printed.out.decode()

    return give


DATA, RUN = os.fsdecode(b"ph\xf6tos"), os.fsdecode(b"r\xfcn")
IMAGE = os.fsdecode(b"ph\xf6tos/val/caf\xe9/b\xffld\x1b0.png")


@pytest.fixture
def run(place, alexnet):
    if not (place / RUN / "report.html").exists():
        alexnet("train", "cifar-quick", "train.epochs=1", "--data", DATA, "--output", RUN, "--quiet")
    return place / RUN


def test_the_report_and_descriptions(run, alexnet):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(name.replace("<b>", "&lt;b&gt;").removesuffix(r"\u000a") in page for name in SHOWN)
    assert not {"\x1b", "\u202e"} & set(page)
    (run / "report.html").unlink()
    assert json.loads(alexnet("report", RUN, "--json"))
    alexnet("info", RUN)
    assert json.loads(alexnet("info", RUN, "--json"))
    alexnet("doctor", DATA)
    alexnet("train", "cifar-quick", "train.epochs=1", "--data", DATA, "--output", RUN, "--quiet")  # it is finished


def test_what_it_says_of_images(run, alexnet):
    assert r"ph\xf6tos" in alexnet("evaluate", RUN, "--data", DATA, "--quiet")
    result = json.loads(alexnet("evaluate", RUN, "--data", DATA, "--json", "--quiet"))
    assert r"caf\xe9" in json.dumps(result, ensure_ascii=False).replace("\\\\", "\\")
    printed = alexnet("predict", RUN, IMAGE)
    assert r"ph\xf6tos/val/caf\xe9/b\xffld\u001b0.png" in printed and all(name in printed for name in SHOWN)
    (prediction,) = json.loads(alexnet("predict", RUN, IMAGE, "--json"))["predictions"]
    assert sorted(guess["name"] for guess in prediction["guesses"]) == sorted(VALID)
    alexnet("features", RUN, DATA, "--output", "f.npz", "--quiet")
    printed = alexnet("neighbours", RUN, IMAGE, "--among", "f.npz", "--output", "n.png")
    assert r"caf\xe9" in printed


@pytest.mark.parametrize("what", ["activations", "gradcam", "gradients", "occlusion", "heatmap", "units", "tsne"])
def test_pictures(run, alexnet, place, what):
    named = ["--class", os.fsdecode(b"caf\xe9")] if what == "gradcam" else []
    images = ["--data", DATA] if what in ("units", "tsne") else [IMAGE]
    alexnet("visualize", RUN, what, *images, *named, "--output", f"{what}.svg", "--quiet")
    drawn = (place / f"{what}.svg").read_text(encoding="utf-8")
    assert not {"\x1b", "\u202e"} & set(drawn)


def test_files_for_others(run, alexnet, place):
    assert r"caf\xe9" not in alexnet("prepare", DATA, "prepared", "--quiet")
    assert json.loads((place / "prepared" / "dataset.json").read_text())["classes"] == VALID
    alexnet("evaluate", RUN, "--data", "prepared", "--quiet")
    alexnet("export", RUN, "--output", "network.onnx", "--quiet")
    alexnet("export", RUN, "--output", os.fsdecode(b"n\xe9.pt2"), "--quiet")
    alexnet("export", RUN, "--output", os.fsdecode(b"n\xe9.onnx"), "--quiet", code=2)


def test_the_card_and_back(run, alexnet, place):
    pytest.importorskip("huggingface_hub", reason="the Hub's library is not installed: pip install 'alexnet[hub]'")
    alexnet("push", RUN, "--output", "card", "--quiet")
    card = (place / "card" / "README.md").read_text(encoding="utf-8")
    assert r"AlexNet for ph\\xf6tos" in card and not {"\x1b", "\u202e"} & set(card)
    assert list(json.loads((place / "card" / "config.json").read_text())["id2label"].values()) == VALID
    alexnet("evaluate", "card", "--data", DATA, "--quiet")


def test_the_page(run, place):
    image = (place / IMAGE).read_bytes()
    with running_server([run]) as server:
        (network,) = server.get("/api/description").json["networks"]
        assert [item["name"] for item in network["classes"]] == VALID
        assert network["title"] == r"r\xfcn" and network["data"] == r"ph\xf6tos"
        answer = server.post("/api/predict", image).json
        assert sorted(guess["id"] for guess in answer["networks"][0]["guesses"]) == sorted(VALID)
        assert server.post("/api/activations?layer=%1b%c3%28", image).status == 404

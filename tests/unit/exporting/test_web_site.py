"""The folder of a page that runs the network in the browser: what is in it, and what becomes of a folder before it."""

import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from serving_stand_ins import NAMES, color_checkpoint

import alexnet
from alexnet.commands.export import _print as print_report
from alexnet.errors import RunError, UserError
from alexnet.exporting.onnx_file import open_session
from alexnet.exporting.web import runtime, site
from alexnet.exporting.web.trial import try_insights
from alexnet.serve.app import PAGE
from alexnet.serve.examples import Example
from alexnet.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two networks exported, with a stand-in for what runs them; the report and the folder."""
    folder = tmp_path_factory.mktemp("web")
    first = color_checkpoint(folder / "first.pt")
    second = color_checkpoint(folder / "second.pt", order=(1, 0, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "find_runtime", lambda given, tell: dict.fromkeys(runtime.FILES, b"stand-in"))
        patch.setattr(site, "examples_of_run", lambda folder: [Example(np.zeros((9, 9, 3), np.uint8), "n1", "green")])
        report = alexnet.export(first, folder / "site", format="web", compare=second)
    return SimpleNamespace(report=report, folder=folder / "site", first=first, second=second)


def test_the_page_is_that_of_the_server_but_for_where_answers_come_from(written):
    for file in PAGE.iterdir():
        same = (written.folder / file.name).read_bytes() == file.read_bytes()
        assert same == (file.name not in ("network.js", "index.html")), file.name
    assert all((written.folder / "onnxruntime" / name).read_bytes() == b"stand-in" for name in runtime.FILES)
    assert [file.name for file in written.folder.parent.iterdir() if file.name.startswith(".")] == []


def test_the_seam_has_the_same_functions_as_the_servers(written):
    exported = re.compile(r"^export (?:async )?(?:function|class) (\w+)", re.MULTILINE)
    own = set(exported.findall((written.folder / "network.js").read_text(encoding="utf-8")))
    assert own == set(exported.findall((PAGE / "network.js").read_text(encoding="utf-8"))) - {"nearest"}


def test_the_page_has_its_policy_inside_and_no_word_of_a_server(written):
    page = (written.folder / "index.html").read_text(encoding="utf-8")
    policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert (
        len(policy) == 1 and "default-src 'none'" in policy[0] and "script-src 'self' 'wasm-unsafe-eval'" in policy[0]
    )
    assert page.index("Content-Security-Policy") < page.index("<link") < page.index("<script")
    assert "openapi" not in page and "server" not in page
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []


def test_the_description_is_what_the_page_asks_for(written):
    description = json.loads((written.folder / "description.json").read_text(encoding="utf-8"))
    first, second = description["networks"]
    assert [first["title"], second["title"]] == ["first", "second"] and first["data"] == "colours"
    assert [each["name"] for each in first["classes"]] == list(NAMES)
    assert description["data"] is None and description["limits"]["max_pixels"] == 64_000_000
    (example,) = description["examples"]
    assert example["class_name"] == "green" and (written.folder / example["picture"]).is_file()
    for identifier, each in description["files"].items():
        name, _, digest = each["file"].partition("?")
        contents = (written.folder / name).read_bytes()
        assert name == f"network-{identifier}.onnx" and len(contents) == each["bytes"]
        assert hashlib.sha256(contents).hexdigest().startswith(digest) and len(digest) == 16
    assert "/secret/place" not in (written.folder / "description.json").read_text(encoding="utf-8")


def test_both_networks_run_and_disagree_as_they_should(written):
    red = np.zeros((1, 36, 36, 3), np.uint8) + np.array([230, 20, 20], np.uint8)
    feeds = {"images": red, "class_index": np.array([-1], np.int32)}
    guesses = []
    for name in ("network-a.onnx", "network-b.onnx"):
        session = onnxruntime.InferenceSession(written.folder / name)
        probabilities, heat = map(np.asarray, session.run(["probabilities", "heat"], feeds))
        assert heat.shape == (1, 32, 32) and heat.max() > 0
        guesses.append(NAMES[probabilities[0].argmax()])
    assert guesses == ["red", "green"]


def test_kernels_are_those_of_the_page(written):
    kernels = json.loads((written.folder / "kernels-a.json").read_text(encoding="utf-8"))
    assert [(bank["count"], bank["rows"], bank["columns"]) for bank in kernels["banks"]] == [(3, 4, 4)]


def test_the_report_has_sizes_what_was_compared_and_what_to_do_next(written, capsys):
    report = written.report
    assert report.format == "web" and report.weights == "int8" and report.output == written.folder
    sizes = report.details["files"]
    assert sizes["network-a.onnx"] == (written.folder / "network-a.onnx").stat().st_size
    assert (
        report.num_bytes
        == sum(sizes.values())
        == sum(path.stat().st_size for path in written.folder.rglob("*") if path.is_file())
    )
    assert report.verification is not None and report.verification.largest < 1e-5
    assert all(each["heat"] < 1e-5 and each["layers"] < 1e-5 for each in report.details["insights"])
    print_report(report)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{written.folder}: web, weights in int8, {report.num_bytes:,} bytes\n  the rest: ")
    assert "Grad-CAM to" in printed and "--data measures it" in printed
    assert f"python -m http.server --bind 127.0.0.1 --directory {written.folder} 8000\n" in printed
    assert "http://127.0.0.1:8000/ in a browser" in printed.splitlines()[-1]


@pytest.mark.parametrize("changed", ["heat", "pool1"])
def test_a_file_that_gives_something_else_is_not_kept(written, changed):
    session = open_session(written.folder / "network-a.onnx")
    names = [output.name for output in session.get_outputs()]

    class Wrong:
        def get_outputs(self):
            return session.get_outputs()

        def run(self, wanted, feeds):
            outputs = dict(zip(names, map(np.asarray, session.run(wanted, feeds)), strict=True))
            outputs[changed] = outputs[changed] * 1.01
            return list(outputs.values())

    checkpoint = load_checkpoint(written.first)
    assert try_insights(session, checkpoint, "int8", 1e-4).layer in names
    with pytest.raises(RunError, match=r"does not compute what the network does.*(Grad-CAM|pool1)"):
        try_insights(Wrong(), checkpoint, "int8", 1e-4)  # type: ignore[arg-type]


def test_only_a_folder_of_an_earlier_export_is_replaced(written, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it", encoding="utf-8")
    with pytest.raises(UserError, match="mine holds other files; give a new folder"):
        alexnet.export(written.first, mine, format="web")
    with pytest.raises(UserError, match=r"thesis\.txt is no folder"):
        alexnet.export(written.first, mine / "thesis.txt", format="web")
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]


def test_an_export_that_fails_leaves_what_was_there(written, monkeypatch):
    def fail(*arguments):
        raise RunError("it failed")

    before = {path: path.read_bytes() for path in written.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(site, "find_runtime", lambda given, tell: {})
    monkeypatch.setattr(site, "write_program", fail)
    with pytest.raises(RunError, match="it failed"):
        alexnet.export(written.first, written.folder, format="web")
    assert {path: path.read_bytes() for path in written.folder.rglob("*") if path.is_file()} == before
    assert [file.name for file in written.folder.parent.iterdir() if file.name.startswith(".")] == []


def test_options_that_mean_nothing_for_a_format_are_refused(tmp_path):
    with pytest.raises(UserError, match="--logits is nothing for the format web"):
        alexnet.export("nothing.pt", tmp_path / "site", format="web", logits=True)
    with pytest.raises(UserError, match="--compare is nothing for the format onnx"):
        alexnet.export("nothing.pt", tmp_path / "a.onnx", compare="other.pt")
    with pytest.raises(UserError, match="--runtime is nothing for the format safetensors"):
        alexnet.export("nothing.pt", tmp_path / "a.safetensors", runtime="folder")

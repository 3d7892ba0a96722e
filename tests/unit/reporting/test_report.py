import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from alexnet.config_io import load_recipe, to_toml
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import ImageSet
from alexnet.errors import UserError
from alexnet.evaluation.report import Protocol, summarize
from alexnet.models import build_network
from alexnet.reporting import image_sections
from alexnet.reporting.image_sections import confused_pairs
from alexnet.reporting.report import save_report_images, write_report
from alexnet.reporting.report_images import choose_examples, load_report_images
from alexnet.reporting.run_record import RunRecord, changed_settings, read_run
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.visualize.kernels import first_kernels

HOSTILE = '<img src="http://evil.example/x.png" onerror=alert(1)>\x1b[2J&$a$caf\udce9\u202e'


class Page(HTMLParser):
    """Collects what the tests look at; fails on tags that are closed in the wrong order."""

    VOID = frozenset({"meta", "img", "path", "use", "line"})

    def __init__(self, source):
        super().__init__()
        self.open, self.attributes, self.tags, self.words = [], [], [], []
        self.feed(source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def made_up_report(names, num_images, size=40):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), num_images)
    logits = rng.normal(size=(num_images, len(names)))
    logits[np.arange(num_images), labels] += 1.5
    return summarize(
        (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32),
        labels,
        protocol=Protocol("ten_crop", size, (32,), 1.0),
        keys=[f"val/{names[label]}/{i}.jpg" for i, label in enumerate(labels)],
        classes=[f"n{i}" for i in range(len(names))],
        class_names=names,
    )


def make_run(folder, num_classes=4, num_images=60, size=40, names=None, finished=True):
    """A run's folder with made-up results."""
    (folder / "checkpoints").mkdir()
    names = names or [f"name {i}" for i in range(num_classes)]
    report = made_up_report(names, num_images, size)
    ids = list(report.classes)
    (folder / "config.toml").write_text(to_toml(load_recipe("digits", ["optimizer.lr=0.02"])))
    (folder / "data.json").write_text(
        json.dumps({
            "source": "digits", "classes": ids, "class_names": names, "num_train": 1617, "num_val": num_images,
            "skipped": {"train": {f"train/{names[0]}/bad.jpg": "the file is truncated"}, "val": {}},
        })
    )  # fmt: skip
    events = [{"event": "start", "step": 0, "num_steps": 50}]
    for step in range(1, 41):
        events.append(
            {"event": "step", "step": step, "epoch": step / 5, "loss": 2 / step, "top1_error": 0.3, "lr": 0.02}
        )
        if step % 10 == 0:
            events.append({
                "event": "evaluation", "step": step, "epoch": step / 5, "split": "val", "views": "center",
                "num_images": num_images, "loss": 1 / step, "top1_error": 5 / step, "top5_error": 0.0,
            })  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "st')
    if finished:
        array = np.random.default_rng(0).integers(0, 256, (num_images, size, size, 3), dtype=np.uint8)
        report.save(folder / "evaluation.npz")
        save_report_images(
            report, ImageSet(report.labels, report.keys, size, array=array), folder / "report_images.npz"
        )
        (folder / "environment.json").write_text(
            json.dumps({"python": "3.11", "versions": {"torch": "2.13"}, "devices": []})
        )
        (folder / "summary.json").write_text(
            json.dumps({
                "top1_error": report.top1_error, "top5_error": report.top5_error, "loss": report.loss,
                "num_images": num_images, "views": "ten_crop", "step": 40, "checkpoint": "best",
                "images_per_second": 71.25, "model": "as_run", "data": "digits",
            })
        )  # fmt: skip
        save_checkpoint(folder / "checkpoints" / "best.pt", small_checkpoint(ids, names))
    return report


def small_checkpoint(ids, names, model_name="cifar_quick", channel_order="rgb"):
    model = build_network(model_name, num_classes=len(ids))
    preprocessing = Preprocessing(40, 32, "pixels", channel_order, "center_crop", torch.zeros(40, 40, 3))
    return Checkpoint(
        model.architecture, len(ids), 32, tuple(ids), tuple(names), preprocessing, {}, "digits", 40, 8.0, {},
        model.state_dict(), None, {},
    )  # fmt: skip


def assert_loads_nothing(page):
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:80])
        assert not name.startswith("on"), (tag, name)
        if name == "style":
            assert not re.search(r"url\((?!#)", value)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)


def test_a_finished_run_has_everything_in_one_page(tmp_path):
    report = make_run(tmp_path, num_classes=8)
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    source = path.read_text()
    page = Page(source)
    assert_loads_nothing(page)
    assert "http" not in re.sub(r"http-equiv", "", source) and "@import" not in source
    low, high = report.top1_interval
    for expected in (
        "as_run on digits", f"{100 * report.top1_error:.1f} %", f"{100 * low:.1f} % to {100 * high:.1f} %",
        "60 validation images", "ten crops", "best, step 40", "71.25 images/s", "1,617 training images",
        "train/name 0/bad.jpg", "the file is truncated", "optimizer.lr", "0.02", "torch 2.13", "32 kernels of conv1",
        "Most frequent confusions", "name 3",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert page.tags.count("svg") == 3
    assert page.tags.count("h1") == 1 and page.tags.count("h2") == 9
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(pictures) == 1 + 8 + min(24, len(report.worst_mistakes()))
    assert all(value for tag, name, value in page.attributes if name in ("alt", "aria-label", "scope"))
    assert page.tags.count("img") == sum(name == "alt" for _, name, _ in page.attributes)


def test_links_of_the_page_lead_somewhere_and_ids_are_unique(tmp_path):
    make_run(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")]
    assert targets and set(targets) <= set(ids)


@pytest.mark.parametrize("num_classes", [2, 30])
def test_hostile_names_stay_text(tmp_path, num_classes):
    names = [HOSTILE, *(f"{HOSTILE}{i}" for i in range(num_classes - 1))]
    make_run(tmp_path, num_classes=num_classes, names=names)
    source = write_report(tmp_path).read_text()
    page = Page(source)
    assert_loads_nothing(page)
    assert '<img src="http' not in source and not {"\x1b", "\u202e"} & set(source)
    assert r"\u001b[2J&$a$caf\xe9\u202e" in page.text
    assert '<img src="http://evil.example/x.png" onerror=alert(1)>' in page.text


@pytest.mark.parametrize(
    ("num_classes", "tables", "drawings"), [(2, 1, 0), (20, 1, 0), (21, 0, 1), (200, 0, 1), (201, 0, 0), (1000, 0, 0)]
)
def test_the_confusion_matrix_is_legible_for_any_number_of_classes(tmp_path, num_classes, tables, drawings):
    report = made_up_report([f"name {i}" for i in range(num_classes)], num_images=300)
    page = Page(image_sections.confusion(RunRecord(tmp_path, evaluation=report)))
    assert page.attributes.count(("table", "class", "matrix")) == tables
    assert page.tags.count("svg") == drawings
    assert "Most frequent confusions" in page.text


def test_of_at_most_five_classes_no_top5_error_is_shown(tmp_path):
    make_run(tmp_path, num_classes=5)
    assert "top-5 error" not in Page(write_report(tmp_path).read_text()).text


def test_an_unfinished_run_reports_what_there_is(tmp_path):
    make_run(tmp_path, finished=False)
    page = Page(write_report(tmp_path).read_text())
    assert "This run is not finished: it is at step 40 of 50" in page.text
    assert "12.5 %" in page.text and "centre crop only" in page.text
    assert "The confusion matrix appears when the run is finished." in page.text
    assert page.tags.count("svg") == 3


def test_a_run_that_has_only_begun_has_a_report_too(tmp_path):
    (tmp_path / "config.toml").write_text("")
    page = Page(write_report(tmp_path).read_text())
    assert "There is no result yet" in page.text and "No step has been logged yet." in page.text


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path):
    make_run(tmp_path)
    (tmp_path / "evaluation.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "report_images.npz").write_bytes(b"")
    (tmp_path / "data.json").write_text("[1]")
    (tmp_path / "checkpoints/best.pt").write_bytes(b"x")
    page = Page(write_report(tmp_path).read_text())
    for name in ("evaluation.npz", "report_images.npz", "data.json", "checkpoints/best.pt"):
        assert f"{name}: " in page.text
    assert "as_run" in page.text and page.tags.count("svg") == 3


def test_another_folder_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="not the folder of a run"):
            write_report(folder)


def test_the_first_layer_is_shown_in_the_banks_of_its_towers():
    names = ["a", "b"]
    kernels = first_kernels(small_checkpoint(names, names, "as_run"))
    assert kernels.banks == 2 and kernels.weights.shape == (96, 3, 11, 11) and kernels.step == 40
    assert first_kernels(small_checkpoint(names, names, "cifar_quick")).banks == 1
    checkpoint = small_checkpoint(names, names, "cifar_quick", channel_order="bgr")
    assert np.array_equal(first_kernels(checkpoint).weights[:, 0], checkpoint.model_state["conv1.weight"][:, 2])


def test_events_written_again_after_a_resume_count_once(tmp_path):
    (tmp_path / "config.toml").write_text("")
    events = [(1, 5.0), (2, 4.0), (3, 9.0), (2, 4.5), (3, 3.0)]
    lines = [json.dumps({"event": "step", "step": s, "loss": x}) for s, x in events]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert [event["loss"] for event in read_run(tmp_path).events_of("step")] == [5.0, 4.5, 3.0]


def test_what_differs_from_the_defaults_is_listed_by_dotted_key():
    changed = changed_settings({"seed": 0, "optimizer": {"lr": 0.02, "layers": {"fc8": {"lr_factor": 2.0}}}, "odd": 1})
    assert ("optimizer.lr", 0.02, 0.01) in changed and ("optimizer.layers.fc8.lr_factor", 2.0, None) in changed
    assert ("odd", 1, None) in changed and not any(key == "seed" for key, _, _ in changed)


def test_examples_are_of_different_classes_and_always_the_same():
    labels = np.repeat(np.arange(10), 30)
    chosen = choose_examples(labels)
    assert len(chosen) == 8 and len(set(labels[chosen])) == 8
    assert chosen == choose_examples(labels) != choose_examples(labels, seed=1)
    assert sorted(choose_examples(np.array([0, 0, 0, 1]))) == [0, 1, 2, 3]
    assert 20 in choose_examples(np.array([0] * 20 + [1]))
    assert len(set(choose_examples(np.array([0] * 20 + [1])))) == 8


def test_report_images_are_the_examples_and_the_worst_mistakes(tmp_path):
    report = make_run(tmp_path)
    saved = load_report_images(tmp_path / "report_images.npz")
    assert saved.examples == choose_examples(report.labels)
    assert set(saved.squares) == {*saved.examples, *(m.index for m in report.worst_mistakes(24))}
    assert all(square.shape == (40, 40, 3) for square in saved.squares.values())


def test_most_confused_pairs_equal_a_count_by_hand():
    counts = np.array([[9, 2, 0], [5, 1, 1], [0, 0, 7]])
    assert confused_pairs(counts) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert confused_pairs(counts, 1) == [(1, 0, 5)]
    assert counts[0, 0] == 9

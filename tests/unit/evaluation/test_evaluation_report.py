import json

import numpy as np
import pytest

import alexnet.evaluation.report as report_module
from alexnet.errors import UserError
from alexnet.evaluation.report import EvaluationReport, Protocol, summarize

PROTOCOL = Protocol("ten_crop", 256, (224, 227), 2.0)


def small_report():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], dtype=np.float32
    )
    return summarize(
        probabilities,
        np.array([0, 0, 0, 1, 1]),
        protocol=PROTOCOL,
        keys=[f"{i}.jpg" for i in range(5)],
        classes=["n1", "n2", "n3"],
        class_names=["cat", "dog", "eel"],
    )


def test_classes_are_summed_up_one_by_one():
    cat, dog, eel = small_report().per_class
    assert (cat.name, cat.class_id, cat.count, cat.most_confused_with) == ("cat", "n1", 3, "dog")
    assert cat.top1_error == pytest.approx(2 / 3)
    assert dog.top1_error == 1 and dog.most_confused_with == "cat"
    assert (eel.count, eel.top1_error, eel.most_confused_with) == (0, None, None)


def test_worst_mistakes_come_most_confident_first():
    mistakes = small_report().worst_mistakes()
    assert [(m.index, m.label, m.guess) for m in mistakes] == [(2, 0, 1), (1, 0, 1), (4, 1, 0), (3, 1, 2)]
    assert mistakes[0].key == "2.jpg" and mistakes[0].probability == pytest.approx(0.9)
    assert len(small_report().worst_mistakes(2)) == 2


def test_error_rates_come_with_their_protocol_and_interval():
    report = small_report()
    assert report.top1_error == pytest.approx(0.8) and report.top5_error == 0
    assert report.top1_interval[0] < 0.8 < report.top1_interval[1]
    assert report.images_per_second == 2.5
    values = json.loads(json.dumps(report.to_dict()))
    assert values["views"] == "ten_crop" and values["num_images"] == 5 and values["num_models"] == 2
    assert values["per_class"][2] == {
        "index": 2, "class_id": "n3", "name": "eel", "count": 0, "top1_error": None, "most_confused_with": None,
    }  # fmt: skip


def test_the_confusion_matrix_is_part_of_the_record_of_few_classes(monkeypatch):
    assert small_report().to_dict()["confusion"] == [[1, 2, 0], [1, 0, 1], [0, 0, 0]]
    monkeypatch.setattr(report_module, "MAX_CONFUSION_CLASSES", 2)
    assert small_report().to_dict()["confusion"] is None


def test_a_saved_report_says_the_same(tmp_path):
    report = small_report()
    report.save(tmp_path / "evaluation.npz")
    again = EvaluationReport.load(tmp_path / "evaluation.npz")
    assert again.to_dict() == report.to_dict()
    assert np.array_equal(again.probabilities, report.probabilities) and again.keys == report.keys
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.npz"]


@pytest.mark.parametrize("contents", [b"", b"not a file of arrays", b"PK\x03\x04 broken"])
def test_another_file_is_refused(tmp_path, contents):
    path = tmp_path / "evaluation.npz"
    path.write_bytes(contents)
    with pytest.raises(UserError, match="not a saved evaluation"):
        EvaluationReport.load(path)

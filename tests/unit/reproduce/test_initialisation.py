import math

import numpy as np
import pytest
from study_stand_ins import bench_of

from alexnet.models import build_network
from alexnet.reproduce import initialisation
from alexnet.reproduce.initialisation import STARTS, first_below

TINY = (
    "model.image_size=67",
    "data.image_size=72",
    "train.batch_size=4",
    "train.min_steps=3",
    "data.max_train_images=64",
)


def test_learning_begins_with_a_whole_window_below_the_level():
    losses = np.array([2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    assert first_below(losses, 1.6, 2) == 3  # steps 2 and 3
    assert first_below(losses, 1.4, 2) == 6
    assert first_below(losses, 0.9, 2) is None
    assert first_below(losses, 3.0, 8) is None  # there are not as many


def test_the_starts_differ_in_what_they_say():
    starts = {start.label: start for start in STARTS}
    bench = bench_of_nothing()
    recipes = {label: bench.recipe("folder", *start.overrides) for label, start in starts.items()}
    models = {
        label: build_network(
            recipe.model.name,
            10,
            image_size=67,
            initialization=recipe.model.initialization,
            input_scale=recipe.model.input_scale,
        )
        for label, recipe in recipes.items()
    }
    deviations = {label: float(model.conv4.weight.detach().std()) for label, model in models.items()}
    assert deviations["as-run"] == pytest.approx(0.03, rel=0.01)
    assert deviations["paper"] == deviations["paper-unit"] == deviations["caffe"] == pytest.approx(0.01, rel=0.01)
    assert deviations["paper-std"] == pytest.approx(0.01, rel=0.01)
    assert deviations["torch"] == pytest.approx(1 / math.sqrt(3 * 192 * 9), rel=0.01)  # uniform within 1/sqrt(fan-in)
    assert {label: float(model.fc6.bias.detach()[0]) for label, model in models.items() if label != "torch"} == {
        "as-run": 1,
        "paper": 1,
        "paper-unit": 1,
        "caffe": pytest.approx(0.1),
        "paper-std": 1,
    }
    scales = {label: model.architecture.input_scale for label, model in models.items()}
    assert [label for label, scale in scales.items() if scale == "unit"] == ["paper-unit"]
    assert [label for label, recipe in recipes.items() if recipe.optimizer.bias_lr_factor == 1] == [
        "paper",
        "paper-unit",
    ]


def bench_of_nothing():
    from pathlib import Path

    return bench_of(Path())


def test_the_study_measures_trains_and_leaves_no_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(initialisation, "STARTS", (STARTS[0], STARTS[2]))
    monkeypatch.setattr(initialisation, "WINDOW", 2)
    bench = bench_of(tmp_path / "study", data="shapes:72", overrides=TINY)
    outcome = initialisation._run(bench)
    rows = {row.quantity: row.mean for row in outcome.rows}
    assert rows["as run: first loss"] == pytest.approx(math.log(10), abs=0.5)
    # The paper's numbers on normalised images: the same output whatever the image.
    assert rows["paper's text, unit inputs: told apart in fc7"] < 0.1 * rows["as run: told apart in fc7"]
    notes = " ".join(outcome.notes)
    assert "guessing: 2.225 (unequal classes; ln 10 = 2.303)" in notes  # sixty-four images of ten classes
    assert "as run, seed 0: does not learn within 3 steps" in notes
    assert "| conv1 |" in notes and "| fc8 |" in notes
    assert not list(tmp_path.rglob("*.pt"))
    assert len((bench.folder / "runs" / "as-run" / "seed-0" / "metrics.jsonl").read_text().splitlines()) >= 5
    assert [(bench.folder / name).is_file() for name in outcome.figures] == [True, True]
    again = initialisation._run(bench)  # nothing is trained twice, though the weights are gone
    assert again.rows == outcome.rows

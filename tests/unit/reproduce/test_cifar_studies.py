"""The studies of CIFAR-10 done from beginning to end, on a few drawn images: what is trained, and what is reported."""

import pytest

from alexnet.config_io import diff_recipes, load_recipe
from alexnet.models import build_network
from alexnet.reporting.progress import Progress
from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce import figure_1, lrn_cifar, precision
from alexnet.reproduce.catalogue import get_study
from alexnet.reproduce.record import table_cells
from alexnet.reproduce.training_error import Curve
from alexnet.reproduce.workbench import Workbench
from alexnet.training.optimizer import build_optimizer

SHORT = (
    *("data.max_train_images=64", "train.epochs=1", "train.batch_size=32", "evaluate.batch_size=64"),
    *("schedule.milestones=[]", "schedule.factors=[]", 'schedule.name="constant"', "runtime.num_threads=1"),
)


@pytest.fixture
def bench(tmp_path):
    return Workbench(tmp_path, "shapes:40", (0, 1), SHORT, "small", Progress("silent"))


@pytest.mark.parametrize("unit", ["relu", "tanh", "silu"])
def test_figure_1_has_no_regularisation_of_any_kind(unit, tmp_path):
    whole = Workbench(tmp_path, "shapes", (0,), (), "full", Progress("silent"))
    recipe = figure_1.recipe_of(whole, unit, 0.002, 0)
    model = build_network(recipe.model.name, 10, activation=recipe.model.activation)
    groups = build_optimizer(model, recipe.optimizer).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0] * len(groups)
    assert recipe.augment.crop == "center" and not recipe.augment.flip and recipe.augment.color_noise == 0
    assert recipe.train.label_smoothing == 0 and not model.dropout_layers
    assert recipe.optimizer.lr == 0.002 and recipe.schedule.name == "constant"


def test_figure_1_sweeps_then_trains_every_seed(bench, monkeypatch):
    monkeypatch.setattr(figure_1, "_RATES", (0.001, 0.002))
    monkeypatch.setattr(figure_1, "TARGET", 0.99)  # what even guessing reaches, so that every unit arrives
    outcome = figure_1.run(bench)
    quantities = [row.quantity for row in outcome.rows]
    assert [name.rpartition(" ")[2] for name in quantities[:3]] == ["relu", "tanh", "silu"]
    assert quantities[3:] == ["tanh's epochs over ReLU's", "tanh's epochs over ReLU's, errors at mid-epoch"]
    assert "seed 0, which chose the rates, is one of the seeds" in outcome.rows[3].protocol
    relu, tanh = outcome.rows[0].values, outcome.rows[1].values
    assert outcome.rows[3].values == {seed: tanh[seed] / relu[seed] for seed in (0, 1)}
    assert (bench.folder / outcome.figures[0]).is_file()


def test_figure_1_gives_a_bound_where_a_unit_never_arrives(tmp_path, monkeypatch):
    falling, flat = Curve([1, 2, 60], [0.9, 0.2, 0.1]), Curve([1, 2, 60], [0.9, 0.6, 0.3])
    monkeypatch.setattr(
        figure_1, "_train", lambda bench, unit, rate, seed: (flat if unit == "tanh" else falling, 50_000)
    )
    outcome = figure_1.run(Workbench(tmp_path, "", (0, 1), (), "full", Progress("silent")))
    relu, tanh, _, ratio, at_middle = outcome.rows
    assert at_middle.at_least and at_middle.values[0] == pytest.approx(59.5 / (relu.values[0] - 0.5))
    assert (relu.at_least, tanh.at_least, ratio.at_least) == (False, True, True)
    assert tanh.values == {0: 60, 1: 60} and ratio.values[0] == pytest.approx(60 / relu.values[0])
    assert "of the 50,000 training images" in ratio.protocol
    assert any(note.startswith("tanh did not reach 25% in 60 epochs (last: seed 0 30.0%") for note in outcome.notes)
    assert any(note.startswith("tanh: its fastest rate is at the edge") for note in outcome.notes)
    assert table_cells(ratio)[2].startswith("more than ")


def test_a_rate_that_diverges_is_one_that_does_not_arrive(bench, monkeypatch):
    monkeypatch.setattr(figure_1, "_RATES", (0.001, 1e30))
    monkeypatch.setattr(figure_1, "_UNITS", ("relu", "tanh"))
    monkeypatch.setattr(figure_1, "TARGET", 0.0)
    outcome = figure_1.run(bench)
    assert outcome.notes[0].startswith("Fastest rates: relu 0.001")
    monkeypatch.setattr(figure_1, "_RATES", (1e30,))
    assert any("none, it diverged" in note for note in figure_1.run(bench).notes)


def test_figure_1_has_no_ratio_where_relu_never_arrives(bench, monkeypatch):
    monkeypatch.setattr(figure_1, "_RATES", (0.001,))
    monkeypatch.setattr(figure_1, "TARGET", 0.0)
    outcome = figure_1.run(bench)
    assert len(outcome.rows) == 3 and all(row.at_least for row in outcome.rows)


@pytest.mark.parametrize(
    ("overrides", "status"),
    [((), "matched"), (('runtime.precision="bfloat16"',), "matched"), (("train.epochs=1",), "measured")],
)
def test_a_changed_recipe_is_not_held_against_the_published_error(tmp_path, monkeypatch, overrides, status):
    summary = {
        "num_images": 10_000,
        "views": "ten_crop",
        "checkpoint": "last",
        "top1_error": 0.13,
        "loss": 0.4,
        "data": "c",
    }
    data = {"kind": "cifar10"}
    monkeypatch.setattr(
        Workbench, "train", lambda bench, label, recipe: RunRecord(tmp_path, summary=summary, data=data)
    )
    bench = Workbench(tmp_path, "", (0,), overrides, "full", Progress("silent"))
    assert get_study("cifar-13").run(bench).rows[0].status == status
    data["kind"] = "folder"
    elsewhere = get_study("cifar-13").run(bench)
    assert elsewhere.rows[0].status == "measured" and "another data set" in elsewhere.notes[0]
    data["kind"], summary["num_images"] = "cifar10", 9_000
    assert get_study("cifar-13").run(bench).rows[0].status == "measured"


def test_the_clean_test_of_normalisation_changes_nothing_else(bench):
    outcome = lrn_cifar.run(bench)
    with_norms, without, gain = (row.values for row in outcome.rows)
    assert gain == {seed: without[seed] - with_norms[seed] for seed in (0, 1)}
    for seed in (0, 1):
        kept, removed = (
            load_recipe(bench.run_folder(label, seed) / "config.toml") for label in ("with-norms", "without-norms")
        )
        assert diff_recipes(kept, removed) == [("model.without", (), ("norm1", "norm2"))]


def test_precision_trains_both_forms_of_each_seed(bench):
    outcome = precision.run(bench)
    float32, bfloat16 = outcome.rows[0].values, outcome.rows[1].values
    assert outcome.rows[-1].values == {seed: bfloat16[seed] - float32[seed] for seed in (0, 1)}
    used = {
        load_recipe(bench.run_folder(name, 1) / "config.toml").runtime.precision for name in ("float32", "bfloat16")
    }
    assert used == {"float32", "bfloat16"}

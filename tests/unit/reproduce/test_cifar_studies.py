"""The studies of CIFAR-10 done from beginning to end, on a few drawn images: what is trained, and what is reported."""

import pytest

from alexnet.config_io import diff_recipes, load_recipe
from alexnet.models import create_model
from alexnet.reporting.progress import Progress
from alexnet.reproduce import figure_1, lrn_cifar, precision
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
    model = create_model(recipe.model.name, 10, activation=recipe.model.activation)
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
    assert quantities[3:] == ["tanh's epochs over ReLU's"] and set(outcome.rows[3].values) == {0, 1}
    relu, tanh = outcome.rows[0].values, outcome.rows[1].values
    assert outcome.rows[3].values == {seed: tanh[seed] / relu[seed] for seed in (0, 1)}
    assert (bench.folder / outcome.figures[0]).is_file()


def test_figure_1_says_which_units_never_arrived(bench, monkeypatch):
    monkeypatch.setattr(figure_1, "_RATES", (0.001,))
    monkeypatch.setattr(figure_1, "TARGET", 0.0)
    outcome = figure_1.run(bench)
    assert outcome.rows == () and "relu (seed 0), relu (seed 1), tanh (seed 0)" in outcome.notes[1]


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

"""The studies of ImageNet at their small scale, for a few steps on drawn shapes."""

import json

import pytest

import alexnet
import alexnet.training.run as run_module
from alexnet.config_io import diff_recipes, load_recipe
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress
from alexnet.reproduce.ablations import ABLATIONS
from alexnet.reproduce.catalogue import STUDIES, get_study
from alexnet.reproduce.workbench import Workbench
from alexnet.training.checkpoint_writer import CheckpointWriter

FEW_STEPS = (
    "model.image_size=96",
    "data.image_size=100",
    "data.max_train_images=8",
    "train.batch_size=4",
    "train.epochs=1",
    "train.min_steps=2",
    "evaluate.views=center",
    "runtime.num_threads=1",
)


def bench_in(folder, *overrides, seeds=(0,)):
    return Workbench(folder, "shapes:100", seeds, (*FEW_STEPS, *overrides), "small", Progress("silent"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One folder for all ablations, so that their base is trained once."""
    return tmp_path_factory.mktemp("ablations")


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda ablation: ablation.name)
def test_an_ablation_trains_both_networks_and_compares_them(shared, monkeypatch, ablation):
    # The comparison needs the summaries only, and a checkpoint takes longer than the steps.
    monkeypatch.setattr(CheckpointWriter, "write", lambda self, path, checkpoint, keep=1: None)
    monkeypatch.setattr(run_module, "write_report", lambda folder: folder / "report.html")
    outcome = get_study(ablation.name).run(bench_in(shared))
    rows = {row.quantity: row for row in outcome.rows}
    folders = [shared / "runs" / name / "seed-0" for name in (ablation.base, ablation.recipe)]
    base, changed = (json.loads((folder / "summary.json").read_text()) for folder in folders)
    assert base["step"] == changed["step"] == 2
    difference = 100 * (changed["top1_error"] - base["top1_error"])
    assert rows["top-1 error, difference"].values == pytest.approx({0: difference})
    assert rows["top-1 error, difference"].status == "not resolved"  # one seed
    assert {row.status for row in outcome.rows} == {"measured", "not resolved"}
    keys = [key for key, _, _ in diff_recipes(*(load_recipe(folder) for folder in folders))]
    expected = [key for key, _, _ in diff_recipes(load_recipe(ablation.base), load_recipe(ablation.recipe))]
    assert keys == [key for key in expected if not key.startswith("schedule.bias.")]


@pytest.mark.slow
def test_table_2_averages_the_probabilities_of_its_networks(tmp_path):
    outcome = get_study("table-2").run(bench_in(tmp_path, "evaluate.views=flip", seeds=(0, 1)))
    rows = {row.quantity: row for row in outcome.rows}
    checkpoints = [tmp_path / "runs" / "as-run-2012" / f"seed-{seed}" / "checkpoints" / "last.pt" for seed in (0, 1)]
    together = alexnet.evaluate(checkpoints, "shapes:100", views="flip")
    assert rows["top-1 error, 2 networks"].values == pytest.approx({0: 100 * together.top1_error})
    center = {seed: 100 * alexnet.evaluate(path, views="center").top1_error for seed, path in enumerate(checkpoints)}
    assert rows["top-1 error, centre crop"].values == pytest.approx(center)


def test_a_study_with_rows_that_were_not_run_is_printed_and_recorded(tmp_path, alexnet):
    options = ["--data", "shapes:100", "--scale", "small", "--output", tmp_path, "--quiet"]
    code, printed, _ = alexnet("reproduce", "table-1", *options, *FEW_STEPS)
    assert code == 0
    assert "sparse coding" in printed and "not run" in printed
    record = json.loads((tmp_path / "record" / "record.json").read_text())
    assert {row["status"] for row in record["rows"]} == {"measured", "not run"}
    assert "Not run: another method" in (tmp_path / "record" / "README.md").read_text()


def test_every_study_of_imagenet_needs_data_and_has_a_small_form(tmp_path, alexnet):
    for name in ("table-1", "table-2", *(ablation.name for ablation in ABLATIONS)):
        assert STUDIES[name].small
        code, _, error = alexnet("reproduce", name, "--output", tmp_path / "never")
        assert code == 2
        assert f"{name} needs --data: ILSVRC-20" in error
    with pytest.raises(UserError, match=r"did you mean 'no-conv[2-5]'"):
        get_study("no-conv1")

import numpy as np
import pytest
import torch
from shapes_network import TWO_TOWERS
from study_stand_ins import bench_of, write_checkpoint

from alexnet.errors import UserError
from alexnet.models import build_network
from alexnet.reproduce import figure_3, trained
from alexnet.reproduce.figure_3 import chance_of_split, smoothness
from alexnet.visualize.kernels import color_share


def test_noise_is_told_from_shapes():
    rng = np.random.default_rng(3)
    assert smoothness(rng.normal(size=(96, 3, 11, 11))) == pytest.approx(0, abs=0.02)
    assert smoothness(np.ones((2, 3, 5, 5))) == pytest.approx(1)
    stripes = np.tile(np.array([1.0, -1.0, 1.0]), (1, 3, 3, 1))
    assert smoothness(stripes) == pytest.approx(0)  # as different across as they are alike along


def test_banks_that_differ_are_told_from_banks_that_do_not():
    rng = np.random.default_rng(2)
    same = rng.uniform(0, 1, 96)
    divided = np.concatenate([rng.uniform(0, 0.3, 48), rng.uniform(0.6, 1, 48)])
    assert chance_of_split(divided) == pytest.approx(1 / 10_001)
    assert chance_of_split(divided[::-1]) == chance_of_split(divided)  # whichever bank is the grey one
    # The best known case: with 4 values, 2 of the 6 splits are as far apart as the farthest.
    assert chance_of_split(np.array([0.0, 0.1, 0.8, 1.0])) == pytest.approx(1 / 3, abs=0.03)
    assert chance_of_split(same) == chance_of_split(same)
    # Of splits that were themselves drawn at random, one in twenty is below 5 %.
    found = [chance_of_split(rng.permutation(same), num_splits=200) for _ in range(400)]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09
    assert chance_of_split(np.ones(8)) == 1


def test_a_given_network_is_drawn_and_measured(tmp_path):
    model = build_network(TWO_TOWERS, 10)
    with torch.no_grad():
        model.conv1.weight[:] = model.conv1.weight.mean(dim=(2, 3), keepdim=True)  # blank, so smooth
        model.conv1.weight[:4] = model.conv1.weight[:4].mean(dim=1, keepdim=True)
    path = write_checkpoint(tmp_path / "small.pt", model=model)
    outcome = figure_3._run(bench_of(tmp_path / "study", checkpoint=path))
    rows = {row.quantity: row for row in outcome.rows}
    assert rows["colour share, greyer bank"].values == {3: pytest.approx(0, abs=1e-6)}
    share = color_share(model.conv1.weight[4:].detach().numpy()).mean()
    assert rows["colour share, other bank"].mean == pytest.approx(share, rel=1e-6)
    assert rows["difference of the banks"].mean == pytest.approx(share, rel=1e-5)
    # 8 kernels have 70 splits, of which this one and its mirror image are the farthest.
    assert rows["random splits as far apart"].mean == pytest.approx(100 * 2 / 70, abs=0.6)
    assert "more than chance, so they seem to divide" in " ".join(outcome.notes)
    assert [(tmp_path / "study" / name).is_file() for name in outcome.figures] == [True, True]


def test_banks_that_do_not_differ_are_said_not_to(tmp_path, monkeypatch):
    model = build_network(TWO_TOWERS, 10)
    with torch.no_grad():
        model.conv1.weight[4:] = model.conv1.weight[:4]
    path = write_checkpoint(tmp_path / "small.pt", model=model)
    outcome = figure_3._run(bench_of(tmp_path / "study", checkpoint=path))
    assert "still the noise they began as" in " ".join(outcome.notes)
    monkeypatch.setattr(figure_3, "LEAST_SMOOTHNESS", -1)
    outcome = figure_3._run(bench_of(tmp_path / "study", checkpoint=path))
    assert "no more than chance" in " ".join(outcome.notes)


def test_without_a_checkpoint_the_net_and_its_control_are_trained(tmp_path, monkeypatch):
    path = write_checkpoint(tmp_path / "small.pt")
    asked = []

    def over_seeds(bench, label, name, overrides):
        asked.append((label, name, overrides[0]))
        return {seed: _Run(tmp_path) for seed in bench.seeds}

    (tmp_path / "checkpoints").mkdir()
    path.rename(tmp_path / "checkpoints" / "best.pt")
    monkeypatch.setattr(trained, "over_seeds", over_seeds)
    outcome = figure_3._run(bench_of(tmp_path / "study", seeds=(0, 1)))
    assert asked == [("as_run", "folder", "model.name=as_run"), ("one_tower", "folder", "model.name=one_tower")]
    assert len(outcome.rows) == 10 and all(set(row.values) == {0, 1} for row in outcome.rows)
    assert outcome.figures == ("figure-3.png", "figure-3-control.png", "figure-3-colour.png")
    asked.clear()
    figure_3._run(bench_of(tmp_path / "study", scale="full"))
    assert [name for _, name, _ in asked] == ["as-run-2012", "as-run-2012"]


class _Run:
    def __init__(self, folder):
        self.folder = folder
        self.summary = {"checkpoint": "best"}


def test_grey_digits_are_refused(tmp_path):
    with pytest.raises(UserError, match="digits are grey"):
        figure_3._run(bench_of(tmp_path / "study", data="digits"))

import numpy as np
import pytest
from study_stand_ins import bench_of

from alexnet.reproduce import large_batch
from alexnet.reproduce.large_batch import Result, Way, recipe_of

LARS, PLAIN = Way("lars", 10.0), Way("sgd", 1.28)


def test_the_recipe_is_the_authors_but_for_what_is_said(tmp_path):
    bench = bench_of(tmp_path, scale="full")
    lars, plain = (recipe_of(bench, way, 5000, seed=3) for way in (LARS, PLAIN))
    assert (lars.train.batch_size, lars.train.micro_batch_size, lars.optimizer.rule) == (8192, 128, "lars")
    assert (lars.train.epochs * 5000 / 8192, lars.schedule.warmup_epochs * 5000 / 8192) == pytest.approx((24, 4.8))
    assert (lars.schedule.name, lars.schedule.power, lars.optimizer.lr) == ("poly", 2.0, 10.0)
    changed = {"optimizer": lars.optimizer.model_copy(update={"rule": "sgd", "lr": 1.28})}
    assert plain == lars.model_copy(update=changed)


def test_what_diverges_is_a_result_and_what_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(large_batch, "_BATCH_SIZE", {"small": 16})
    monkeypatch.setattr(large_batch, "_LARS_RATE", {"small": 1e30})  # nothing survives that
    monkeypatch.setattr(large_batch, "_RATE_OF_512", 0.01)
    bench = bench_of(tmp_path / "study", data="shapes:72", overrides=("data.max_train_images=40",))
    outcome = large_batch.run(bench)
    rows = {row.quantity: row.mean for row in outcome.rows}
    assert 0 < rows["plain, rate 1e+30: steps until it diverges"] < 4
    assert rows["plain, rate 0.01: last loss"] < 10
    assert 0 <= rows["plain, rate 0.01: error"] <= 100
    assert any(note.startswith("plain, rate 1e+30, seed 0: diverges") for note in outcome.notes)
    assert not [*tmp_path.rglob("*.pt"), *tmp_path.rglob("diverged.npz")]
    finished = "plain-0.01/seed-0/metrics.jsonl"
    before = (bench.folder / "runs" / finished).stat().st_mtime_ns
    assert large_batch.run(bench) == outcome
    assert (bench.folder / "runs" / finished).stat().st_mtime_ns == before


def test_learning_is_a_last_loss_below_guessing():
    results = {
        LARS: {0: Result(np.array([9.0, 2.0, 1.0, 1.2]), 40.0)},
        PLAIN: {0: Result(np.array([2.4, 2.3, 2.4]), 90.0)},
    }
    learns, does_not = large_batch._verdicts(results, 2.303)
    assert learns == "LARS, rate 10, seed 0: learns: loss 1.400 in the end, 9 at most."
    assert does_not.startswith("plain, rate 1.28, seed 0: does not learn")

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alexnet.evaluation.metrics import (
    confusion_matrix,
    negative_log_likelihood,
    top_k_credit,
    wilson_interval,
)

# Few distinct values, so that ties are common.
tied_rows = arrays(
    np.float32, st.tuples(st.integers(1, 7), st.integers(1, 9)), elements=st.sampled_from([0, 0.25, 0.5])
)


@given(tied_rows, st.integers(1, 6), st.randoms())
def test_top_k_credit_is_the_mean_over_all_orders_of_tied_classes(probabilities, k, random):
    labels = np.array([random.randrange(probabilities.shape[1]) for _ in probabilities])
    for row, label, credit in zip(probabilities, labels, top_k_credit(probabilities, labels, k), strict=True):
        tied = [c for c in range(len(row)) if row[c] == row[label]]
        greater = [c for c in range(len(row)) if row[c] > row[label]]
        # The label is equally likely to come at each place of the tied classes.
        places = [len(greater) + position for position in range(len(tied))]
        assert credit == pytest.approx(sum(place < k for place in places) / len(places))


@given(st.integers(1, 20), st.integers(2, 12), st.integers(1, 5), st.integers(0, 99))
def test_without_ties_top_k_equals_membership_of_the_k_best(num_images, num_classes, k, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.permuted(np.tile(np.arange(num_classes, dtype=np.float32), (num_images, 1)), axis=1)
    labels = rng.integers(0, num_classes, num_images)
    best = [sorted(range(num_classes), key=row.__getitem__, reverse=True)[:k] for row in probabilities]
    expected = [label in chosen for label, chosen in zip(labels, best, strict=True)]
    assert top_k_credit(probabilities, labels, k).tolist() == [float(hit) for hit in expected]


def test_equal_outputs_get_chance_level():
    uniform = np.full((4, 10), 0.1, dtype=np.float32)
    labels = np.array([0, 3, 5, 9])
    assert top_k_credit(uniform, labels, 1) == pytest.approx(0.1)
    assert top_k_credit(uniform, labels, 5) == pytest.approx(0.5)
    assert top_k_credit(uniform, labels, 10).tolist() == [1.0] * 4


def test_a_tie_across_the_border_shares_the_remaining_places():
    row = np.array([[0.4, 0.2, 0.2, 0.2]], dtype=np.float32)
    assert top_k_credit(row, np.array([2]), 2) == pytest.approx(1 / 3)
    assert top_k_credit(row, np.array([2]), 3) == pytest.approx(2 / 3)
    assert top_k_credit(row, np.array([0]), 1) == 1


def test_loss_is_in_nats_and_stays_finite_where_a_probability_underflowed():
    rows = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    loss = negative_log_likelihood(rows, np.array([0, 1]))
    assert loss[0] == pytest.approx(math.log(4))
    assert 87 < loss[1] < 88


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_confusion_counts_every_pair(pairs):
    labels = np.array([label for label, _ in pairs], dtype=np.int64)
    guesses = np.array([guess for _, guess in pairs], dtype=np.int64)
    counted = confusion_matrix(guesses, labels, 4)
    for label in range(4):
        for guess in range(4):
            assert counted[label, guess] == pairs.count((label, guess))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3 (score, without correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_wilson_interval_holds_the_share_and_stays_a_proportion(trials, share):
    low, high = wilson_interval(share * trials, trials)
    assert 0 <= low <= high <= 1
    if trials:
        assert low <= share * trials / trials <= high

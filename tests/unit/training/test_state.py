"""What training remembers between evaluations."""

import math

import pytest

from alexnet.training.state import TrainingState


def history(state, *evaluations):
    """Whether each (error, loss) is the best so far."""
    return [state.observe(error, loss) for error, loss in evaluations]


def test_of_equal_errors_the_lower_loss_is_the_best():
    state = TrainingState()
    assert history(state, (0.5, 1.0), (0.3, 1.57), (0.3, 1.02), (0.3, 1.02), (0.3, 1.3), (0.4, 0.2)) == [
        True, True, True, False, False, False
    ]  # fmt: skip
    assert (state.best_error, state.best_loss) == (0.3, 1.02)


def test_a_lower_error_is_better_whatever_the_loss():
    state = TrainingState()
    assert history(state, (0.3, 1.0), (0.2, 9.0), (0.3, 0.1)) == [True, True, False]
    assert (state.best_error, state.best_loss) == (0.2, 9.0)


def test_early_stopping_counts_from_the_last_lower_error():
    state = TrainingState()
    counts = []
    for evaluation in ((0.3, 1.0), (0.3, 0.9), (0.3, 0.8), (0.2, 0.8), (0.2, 0.7)):
        state.observe(*evaluation)
        counts.append(state.evaluations_since_best)
    assert counts == [0, 1, 2, 0, 1]


def test_a_state_comes_back_and_one_of_an_earlier_version_keeps_its_best():
    state = TrainingState(step=4)
    state.observe(0.3, 1.57)
    assert TrainingState.from_dict(state.to_dict()) == state
    old = {key: value for key, value in state.to_dict().items() if key != "best_loss"}
    again = TrainingState.from_dict(old)
    assert math.isnan(again.best_loss)
    assert history(again, (0.3, 0.1), (0.2, 3.0), (0.2, 2.0)) == [False, True, True], "its loss is not known"
    assert (again.best_error, again.best_loss) == (0.2, pytest.approx(2.0))

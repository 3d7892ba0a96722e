"""What a study is, the arithmetic of Figure 1, and how two precisions are compared."""

import math

import pytest

from alexnet.errors import UserError
from alexnet.reproduce import precision
from alexnet.reproduce.catalogue import STUDIES, get_study
from alexnet.reproduce.study import Row
from alexnet.reproduce.training_error import Curve, epochs_to, fastest


def row(values, **fields):
    return Row("error", "%", "10 images", dict(enumerate(values)), **fields)


def test_a_row_is_matched_by_its_mean():
    assert row([25.0, 28.0], published=26, tolerance=1.5).status == "matched"
    assert row([25.0, 30.2], published=26, tolerance=1.5).status == "differs"
    assert row([25.0], published=26).status == "measured"
    assert row([25.0], tolerance=1.0).status == "measured"
    assert row([25.0, 28.0, 26.5]).spread == 3.0 and row([25.0]).spread == 0


def test_the_epoch_of_a_target_lies_on_the_line_between_two_values():
    curve = Curve([1, 2, 4], [0.5, 0.3, 0.1])
    assert epochs_to(curve, 0.25) == pytest.approx(2.5)
    assert epochs_to(curve, 0.3) == pytest.approx(2.0)
    assert epochs_to(curve, 0.75) == pytest.approx(0.5), "before the first epoch all are wrong"
    assert epochs_to(curve, 0.05) is None


def test_the_fastest_setting_is_one_that_arrived():
    assert fastest([("a", None), ("b", 7.0), ("c", 3.0)]) == ("c", 3.0)
    assert fastest([("a", None), ("b", None)]) == ("a", None)


def test_a_difference_of_precisions_is_judged_by_seeds_and_images():
    near = {"float32": {0: 25.0, 1: 25.4}, "bfloat16": {0: 25.1, 1: 25.5}}
    far = {"float32": {0: 25.0, 1: 25.4}, "bfloat16": {0: 28.1, 1: 28.5}}
    assert "+0.10 points, within" in precision._judge(near, 10_000)
    assert "+3.10 points, more than" in precision._judge(far, 10_000)
    # Seeds that happen to agree do not make the error of 100 images exact.
    same = {"float32": {0: 20.0, 1: 20.0}, "bfloat16": {0: 22.0, 1: 22.0}}
    bound = 2 * 100 * math.sqrt(0.21 * 0.79 / 100)
    assert f"({bound:.2f} points" in precision._judge(same, 100)


def test_an_unknown_study_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cifar-26'"):
        get_study("cifar-27")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_says_what_it_needs_and_costs(name):
    study = STUDIES[name]
    assert study.name == name and study.title and study.section and study.data and study.cost and study.seeds

"""What a study is, the arithmetic of Figure 1, and how two precisions are compared."""

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
    never, late, early = Curve([1, 9], [0.5, 0.3]), Curve([1, 9], [0.6, 0.2]), Curve([1, 5, 9], [0.9, 0.25, 0.28])
    assert fastest([("never", never), ("late", late), ("early", early)], 0.25) == ("early", early)
    assert fastest([("late", late), ("never", never)], 0.1) == ("late", late), "none arrived: the lowest last error"


def test_a_difference_of_precisions_is_judged_seed_by_seed():
    # Seeds that scatter by points, and pairs that agree to hundredths.
    shown = precision._judge({0: 0.3, 1: 0.32, 2: 0.31})
    assert shown.startswith("bfloat16 minus float32: +0.31 points, 95 % interval +0.29 to +0.33 (3 seeds")
    assert shown.endswith("a difference.")
    wide = precision._judge({0: 0.3, 1: -0.3})
    assert wide.endswith("interval -3.81 to +3.81 (2 seeds, Student's t): no difference is shown.")
    assert "with one seed" in precision._judge({4: 0.3})


def test_an_unknown_study_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cifar-26'"):
        get_study("cifar-27")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_says_what_it_needs_and_costs(name):
    study = STUDIES[name]
    assert study.name == name and study.title and study.section and study.data and study.cost and study.seeds

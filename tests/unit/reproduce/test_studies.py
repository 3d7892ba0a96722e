"""What a study is, its intervals and verdicts, and the arithmetic of Figure 1."""

import json

import pytest

from alexnet.errors import UserError
from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce.catalogue import STUDIES, get_study
from alexnet.reproduce.record import TABLE_HEAD, numbers_text, refresh_record, table_cells
from alexnet.reproduce.study import Row, describe_status, interval_over_seeds
from alexnet.reproduce.training_error import Curve, Stretch, at_the_middle, epochs_to, fastest, stretch_before


def row(values, **fields):
    return Row("error", "%", "10 images", dict(enumerate(values)), **fields)


def test_a_row_is_matched_by_its_mean():
    assert row([25.0, 28.0], published=26, tolerance=1.5).status == "matched"
    assert row([25.0, 30.2], published=26, tolerance=1.5).status == "differs"
    assert row([25.0], published=26).status == "measured"
    assert row([25.0], tolerance=1.0).status == "measured"


def difference(values, published=None, **fields):
    return Row("error, difference", "points", "p", dict(enumerate(values)), published, is_difference=True, **fields)


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        # Worked out by hand with t = 4.302653 for 2 degrees of freedom, and 12.706205 for 1.
        ([0.53, 0.03, -0.26], (-0.892723, 1.092723)),
        ([5.0, 3.0], (-8.706205, 16.706205)),
        ([1.0, 1.0, 1.0], (1.0, 1.0)),
        ([4.0], None),
        ([], None),
    ],
)
def test_an_interval_over_seeds_is_students(values, interval):
    assert interval_over_seeds(values) == (interval if interval is None else pytest.approx(interval, abs=1e-6))


def test_a_row_has_an_interval_over_seeds_or_of_one_network_over_images():
    assert row([25.0, 28.0, 26.5], num_images=10).interval == (*interval_over_seeds([25.0, 28.0, 26.5]), "seeds")
    of_one = row([10.0], num_images=100).interval
    assert of_one == (pytest.approx(5.5229, abs=1e-4), pytest.approx(17.4366, abs=1e-4), "images")  # Wilson, 10 of 100
    assert row([10.0]).interval is None
    assert row([60.0, 60.0], at_least=True).interval is None, "how far bounds lie apart says nothing"


@pytest.mark.parametrize(
    ("values", "published", "status"),
    [
        ([0.3, 0.4, 0.5], 0.4, "size consistent"),
        ([0.3, 0.4, 0.5], None, "measured"),
        ([0.3, 0.4, 0.5], 1.4, "sign shown"),
        ([0.3, 0.4, 0.5], -0.4, "contradicted"),
        ([-0.3, -0.4, -0.5], -0.4, "size consistent"),
        ([-0.3, -0.4, -0.5], 0.4, "contradicted"),
        # Every one of these means is within half a point of the published 0.4, and none of them shows anything.
        ([0.4], 0.4, "not resolved"),
        ([0.1, 0.7], 0.4, "not resolved"),
        ([0.53, 0.03, -0.26], 0.4, "not resolved"),
        ([0.53, 0.03, -0.26], None, "not resolved"),
    ],
)
def test_a_difference_is_judged_by_its_interval(values, published, status):
    assert difference(values, published).status == status


def test_a_difference_of_another_experiment_is_not_held_against_the_published_one():
    assert difference([0.3, 0.4, 0.5], -0.4, is_comparable=False).status == "measured"
    assert difference([0.3, 0.4, -0.5], 0.4, is_comparable=False).status == "not resolved"


def test_a_difference_has_no_tolerance():
    with pytest.raises(AssertionError):
        difference([0.3], 0.4, tolerance=0.5)


def test_one_seed_is_named_where_a_verdict_rests_on_it():
    assert describe_status("matched", 1) == "matched, one seed" and describe_status("matched", 2) == "matched"
    assert describe_status("not resolved", 1) == "not resolved, one seed"
    assert describe_status("measured", 1) == "measured"


@pytest.mark.parametrize(
    "one",
    [
        row([25.0, 28.0], published=26, tolerance=1.5, published_source="s", num_images=40),
        difference([0.3, 0.4], 0.4, is_comparable=False),
        Row("q", "%", "p", {}, not_run="it needs more"),
        row([60.0], at_least=True),
    ],
)
def test_a_row_is_read_back_from_its_record(one):
    assert Row.from_dict(one.to_dict()) == one


def test_an_old_record_of_a_difference_is_judged_by_its_interval():
    old = {"quantity": "q", "unit": "points", "protocol": "p", "published": 0.4, "tolerance": 0.5, "values": {"0": 0.3}}
    read = Row.from_dict({**old, "spread": 0.0, "status": "matched"})
    assert (read.status, read.tolerance, read.is_comparable) == ("not resolved", None, True)
    assert not Row.from_dict({**old, "tolerance": None}).is_comparable


def test_a_range_of_seeds_is_nowhere_written_like_an_interval():
    cells = dict(zip(TABLE_HEAD, table_cells(difference([0.53, 0.03, -0.26], 2.0)), strict=True))
    assert cells["95 % interval"] == "-0.893 to 1.09, over seeds" and cells["status"] == "not resolved"
    text = numbers_text([difference([0.53, 0.03, -0.26], 2.0)])
    assert "seed 0: 0.530, seed 1: 0.0300, seed 2: -0.260" in text and "-0.260 to 0.530" not in text


def test_a_record_is_refreshed_and_the_rest_of_its_page_stays(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"rows": [{**difference([0.3]).to_dict(), "status": "matched"}]}))
    page = tmp_path / "README.md"
    page.write_text(
        "# Title\n\nBy hand.\n\n| quantity | x |\n|---|---|\n| old | 1 |\n\n- **old**: 1.\n\nAlso by hand.\n"
    )
    refresh_record(tmp_path)
    assert json.loads((tmp_path / "record.json").read_text())["rows"] == [difference([0.3]).to_dict()]
    assert page.read_text() == f"# Title\n\nBy hand.\n\n{numbers_text([difference([0.3])])}\n\nAlso by hand.\n"
    page.write_text("# Title\n")
    with pytest.raises(UserError):
        refresh_record(tmp_path)


def test_the_epoch_of_a_target_lies_on_the_line_between_two_values():
    curve = Curve([1, 2, 4], [0.5, 0.3, 0.1])
    assert epochs_to(curve, 0.25) == pytest.approx(2.5)
    assert epochs_to(curve, 0.3) == pytest.approx(2.0)
    assert epochs_to(curve, 0.75) == pytest.approx(0.5), "before the first epoch all are wrong"
    assert epochs_to(curve, 0.05) is None


def test_a_mean_over_an_epoch_is_put_at_its_middle():
    curve = at_the_middle(Curve([1, 2, 4], [0.5, 0.3, 0.1]))
    assert curve == ([0.5, 1.5, 3.0], [0.5, 0.3, 0.1])
    assert epochs_to(curve, 0.25) == pytest.approx(1.875)


def test_the_training_images_before_an_evaluation_are_weighted_by_their_steps(tmp_path):
    events = [
        {"event": "step", "step": 10, "loss": 9.0, "top1_error": 0.9},
        {"event": "evaluation", "step": 10, "epoch": 1.0},
        {"event": "step", "step": 13, "loss": 1.0, "top1_error": 0.5},
        {"event": "step", "step": 14, "loss": 3.0, "top1_error": 0.1},
        {"event": "evaluation", "step": 14, "epoch": 2.01},
        {"event": "step", "step": 20, "loss": 9.0, "top1_error": 0.9},
    ]
    run = RunRecord(tmp_path, events=events)
    assert stretch_before(run, 2.0) == Stretch(pytest.approx(1.5), pytest.approx(0.4), 11, 14)
    assert stretch_before(run, 1.0) == Stretch(9.0, 0.9, 1, 10)
    assert stretch_before(run, 3.0) is None


def test_the_fastest_setting_is_one_that_arrived():
    never, late, early = Curve([1, 9], [0.5, 0.3]), Curve([1, 9], [0.6, 0.2]), Curve([1, 5, 9], [0.9, 0.25, 0.28])
    assert fastest([("never", never), ("late", late), ("early", early)], 0.25) == ("early", early)
    assert fastest([("late", late), ("never", never)], 0.1) == ("late", late), "none arrived: the lowest last error"


def test_an_unknown_study_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cifar-26'"):
        get_study("cifar-27")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_says_what_it_needs_and_costs(name):
    study = STUDIES[name]
    assert study.name == name and study.title and study.section and study.data and study.cost and study.seeds

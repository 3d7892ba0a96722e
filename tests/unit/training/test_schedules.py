"""Learning rates over time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.config import LayerScheduleConfig, ScheduleConfig
from alexnet.config_io import from_toml_text, load_recipe
from alexnet.errors import UserError
from alexnet.training.network import start_network
from alexnet.training.schedules import PlateauRule, Progress, discrete_exponential, rate_factor, warmup_factor


def factor(schedule, epoch=0.0, fraction=0.5, drops=0):
    return rate_factor(schedule, Progress(epoch, fraction, drops))


def test_dexp_is_the_sources():
    rates = [0.01 * discrete_exponential((quarter + 0.5) / 4, 250, 4) for quarter in range(4)]
    assert rates == pytest.approx([0.01, 0.0015874, 0.00025198, 0.00004], rel=1e-4)


def test_dexp_levels_include_their_right_end():
    for level, (inside, end) in enumerate([(0.01, 0.25), (0.26, 0.5), (0.51, 0.75), (0.76, 1.0)]):
        expected = 250 ** (-level / 3)
        assert discrete_exponential(inside, 250, 4) == pytest.approx(expected)
        assert discrete_exponential(end, 250, 4) == pytest.approx(expected)


def test_config_170s_bias_rate_drops_tenfold_at_half_time():
    assert discrete_exponential(0.5, 10, 2) == 1
    assert discrete_exponential(0.500001, 10, 2) == pytest.approx(0.1)


@given(target=st.floats(1, 1e4), levels=st.integers(1, 10), a=st.floats(0, 1), b=st.floats(0, 1))
def test_dexp_never_rises(target, levels, a, b):
    low, high = sorted((a, b))
    assert discrete_exponential(low, target, levels) >= discrete_exponential(high, target, levels)


def test_run_145_has_the_logged_rates():
    recipe = load_recipe("as-run-2012")
    lr = recipe.optimizer.lr

    def weights(epoch):
        return lr * factor(recipe.schedule, epoch)

    def conv1(epoch):
        return lr * factor(recipe.schedule.layers["conv1"], epoch)

    events = {0: 0.01, 24.99: 0.01, 25: 0.001, 50.99: 0.001, 51: 1e-4, 78.99: 1e-4, 79: 1e-5, 90.99: 1e-5}
    for epoch, rate in events.items():
        assert weights(epoch) == pytest.approx(rate)
    for epoch, rate in {24: 0.01, 25: 0.001, 51: 1e-4, 66.9: 1e-4, 67: 1e-5, 71.9: 1e-5, 72: 0, 90: 0}.items():
        assert conv1(epoch) == pytest.approx(rate)
    assert recipe.train.epochs == 91 and recipe.optimizer.bias_lr_factor == 2
    assert factor(recipe.schedule.bias, 90) == 1


def test_config_170_freezes_conv1_at_epoch_74():
    recipe = load_recipe("as-run-automatic")
    conv1 = recipe.schedule.layers["conv1"]
    assert factor(conv1, 73.9, 0.78) == pytest.approx(1 / 250)
    assert factor(conv1, 74, 0.78) == 0


def test_steps_hold_their_factor_from_each_milestone_on():
    schedule = LayerScheduleConfig(name="steps", milestones=[2, 4], factors=[0.5, 0])
    assert [factor(schedule, epoch) for epoch in (0, 1.99, 2, 3.99, 4, 9)] == [1, 1, 0.5, 0.5, 0, 0]


def test_cosine_goes_from_one_to_its_end():
    schedule = LayerScheduleConfig(name="cosine", final_factor=0.1)
    assert factor(schedule, fraction=0.0) == pytest.approx(1)
    assert factor(schedule, fraction=0.5) == pytest.approx(0.55)
    assert factor(schedule, fraction=1.0) == pytest.approx(0.1)


def test_warmup_rises_linearly_from_above_zero():
    schedule = ScheduleConfig(warmup_epochs=2)
    factors = [warmup_factor(schedule, Progress(step * 0.5, 0.1), 0.5) for step in range(6)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert warmup_factor(ScheduleConfig(), Progress(0, 0.1), 0.5) == 1


def observe(errors, **settings):
    rule, schedule = PlateauRule(), LayerScheduleConfig(name="plateau", **settings)
    return rule, [rule.observe(error, schedule) for error in errors]


def test_plateau_drops_when_the_error_stops_improving():
    rule, dropped = observe([0.9, 0.8, 0.7, 0.7, 0.71, 0.72, 0.6], patience_epochs=3)
    assert dropped == [False, False, False, False, False, True, False]
    assert rule.drops == 1 and rule.best_error == 0.6
    assert factor(LayerScheduleConfig(name="plateau"), drops=2) == pytest.approx(0.01)


def test_plateau_starts_counting_anew_after_a_drop():
    _, dropped = observe([0.5] + [0.6] * 6, patience_epochs=3)
    assert dropped == [False, False, False, True, False, False, True]


def test_plateau_takes_a_tiny_improvement_for_none():
    rule, dropped = observe([0.5, 0.4999, 0.4998], patience_epochs=2, min_improvement=0.001)
    assert dropped == [False, False, True]
    assert rule.best_error == 0.5


def test_plateau_drops_at_most_three_times():
    rule, dropped = observe([0.5] * 50, patience_epochs=2)
    assert sum(dropped) == 3 and rule.drops == 3


def test_a_bias_rate_may_drop_fewer_times():
    bias = LayerScheduleConfig(name="plateau", max_drops=1)
    assert [factor(bias, drops=drops) for drops in range(4)] == pytest.approx([1, 0.1, 0.1, 0.1])


def test_plateau_state_survives_saving():
    rule, _ = observe([0.5, 0.6, 0.6], patience_epochs=5)
    again = PlateauRule(**rule.to_dict())
    assert again == rule and again.evaluations_since_best == 2
    assert PlateauRule(**PlateauRule().to_dict()).best_error == math.inf


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "steps"}, "needs milestones"),
        ({"name": "steps", "milestones": [1, 2], "factors": [0.1]}, "same length"),
        ({"name": "steps", "milestones": [2, 1], "factors": [0.1, 0.01]}, "ascending"),
        ({"name": "cosine", "milestones": [2], "factors": [0.1]}, "belong to"),
    ],
)
def test_impossible_schedules_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LayerScheduleConfig(**values)


def test_poly_falls_with_the_share_of_the_run_that_is_left():
    schedule = ScheduleConfig(name="poly", power=2.0)
    assert [factor(schedule, fraction=fraction) for fraction in (0.0, 0.5, 0.9)] == pytest.approx([1.0, 0.25, 0.01])


def test_a_warmup_rises_from_where_it_is_told_to():
    schedule = ScheduleConfig(warmup_epochs=4, warmup_start_factor=0.1)
    rising = [warmup_factor(schedule, Progress(epoch, 0.1), epochs_per_step=0.0) for epoch in (0, 2, 4, 6)]
    assert rising == pytest.approx([0.1, 0.55, 1.0, 1.0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["schedule.layers.conv1.name=plateau"],
            r"schedule\.layers\.conv1\.patience_epochs = 3 .*schedule\.patience_epochs = 5",
        ),
        (
            ["schedule.bias.name=plateau", "schedule.bias.patience_epochs=5", "schedule.bias.min_improvement=0.1"],
            r"schedule\.bias\.min_improvement = 0\.1 ",
        ),
        (
            ["schedule.bias.name=plateau", "schedule.bias.patience_epochs=5", "schedule.bias.max_drops=4"],
            r"schedule\.bias\.max_drops = 4 ",
        ),
        (
            ["schedule.bias.layers.conv1.name=plateau", "schedule.bias.layers.conv1.patience_epochs=4"],
            r"schedule\.bias\.layers\.conv1\.patience_epochs = 4 .*schedule\.patience_epochs = 5",
        ),
    ],
)
def test_one_plateau_rule_serves_all_layers(overrides, message):
    with pytest.raises(UserError, match=message):
        build_network_checked(["schedule.name=plateau", "schedule.patience_epochs=5", *overrides])


def test_a_plateau_of_a_layer_may_have_drops_of_its_own():
    build_network_checked(["schedule.layers.conv1.name=plateau", "schedule.layers.conv1.drop_factor=0.5"])


def build_network_checked(overrides):
    start_network(from_toml_text("[model]\nname = 'cifar_quick'", overrides), None, ["a", "b"])

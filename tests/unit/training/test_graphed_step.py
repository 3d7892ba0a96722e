"""The graphed step against the eager one. The capture is a stand-in that runs on any device; tests/gpu has the real."""

import copy

import pytest
import torch
from test_step import CPU, make_batch, masks

from alexnet.config import OptimizerConfig
from alexnet.ops import triton_runtime
from alexnet.training.graphed_step import GraphedStep
from alexnet.training.optimizer import build_optimizer
from alexnet.training.step import train_step


@pytest.fixture(autouse=True)
def _no_interpreter(monkeypatch):
    """The plain references in place of kernels in Triton's interpreter, whose bfloat16 is rounded towards zero."""
    monkeypatch.setattr(triton_runtime, "HAS_TRITON", False)


class StandIn:
    """Captures nothing, but keeps a capture's rules: it computes nothing itself, and its result stays where it is."""

    def __init__(self, error=None):
        self.num_captures = 0
        self.error = error

    def eagerly(self, function, inputs):
        return function(inputs)

    def capture(self, function, inputs):
        if self.error is not None:
            raise self.error
        self.num_captures += 1
        result = (torch.zeros(()), torch.zeros((), dtype=torch.int64))

        def replay():
            for kept, value in zip(result, function(inputs), strict=True):
                kept.copy_(value)

        return replay, result


def run(step, model, preprocessing, *, num_steps=6, dtype=torch.float32, micro_batch_size=12, before=None, **config):
    optimizer = build_optimizer(model, OptimizerConfig(**{"lr": 1e-3, **config}))
    results = []
    model.train()
    for number in range(num_steps):
        if before is not None:
            before(number, model, optimizer)
        results.append(
            step(
                model,
                optimizer,
                make_batch(),
                preprocessing=preprocessing,
                dropout_masks=masks(),
                micro_batch_size=micro_batch_size,
                label_smoothing=0.1,
                device=CPU,
                dtype=dtype,
            )
        )
    return optimizer, results


def is_close(value, expected, tolerance):
    return bool((value - expected).abs().max() <= tolerance * expected.abs().max())


def assert_same(model, other, optimizer, other_optimizer, tolerance):
    for name, parameter in model.named_parameters():
        assert is_close(parameter, other.get_parameter(name), tolerance), name
    state, expected_state = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert state.keys() == expected_state.keys()
    for number, values in state.items():
        for key, value in values.items():
            assert is_close(value, expected_state[number][key], tolerance), key


def both(model, preprocessing, tolerance=1e-5, **settings):
    eager = copy.deepcopy(model)
    expected_optimizer, expected = run(train_step, eager, preprocessing, **settings)
    runner = StandIn()
    step = GraphedStep(runner)
    optimizer, results = run(step, model, preprocessing, **settings)
    assert step.reason is None and step.is_captured
    assert_same(model, eager, optimizer, expected_optimizer, tolerance)
    for result, other in zip(results, expected, strict=True):
        assert result.loss.item() == pytest.approx(other.loss.item(), rel=1e-4)
        assert result.num_wrong == other.num_wrong
    return runner


@pytest.mark.parametrize("rule", ["krizhevsky_2012", "sgd"])
@pytest.mark.parametrize("micro_batch_size", [12, 5])
def test_a_graphed_step_is_the_eager_step(tiny_model, tiny_preprocessing, rule, micro_batch_size):
    runner = both(tiny_model, tiny_preprocessing, rule=rule, micro_batch_size=micro_batch_size)
    assert runner.num_captures == 1


@pytest.mark.parametrize("micro_batch_size", [12, 5])
def test_in_bfloat16_too_with_copies_of_the_weights(tiny_model, tiny_preprocessing, micro_batch_size):
    both(tiny_model, tiny_preprocessing, 1e-2, dtype=torch.bfloat16, micro_batch_size=micro_batch_size)


def test_rates_that_change_every_step_need_no_new_graph(tiny_model, tiny_preprocessing):
    def before(number, model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 / (1 + number)

    assert both(tiny_model, tiny_preprocessing, num_steps=8, before=before).num_captures == 1


def test_a_frozen_layer_is_left_alone_and_captured_anew(tiny_model, tiny_preprocessing):
    frozen = {}

    def before(number, model, optimizer):
        if number == 5:
            for group in optimizer.param_groups:
                if group["layer"] == "conv1":
                    group["lr"] = 0.0
            frozen["before"] = model.conv1.weight.detach().clone()

    runner = both(tiny_model, tiny_preprocessing, num_steps=10, before=before)
    assert runner.num_captures == 2
    assert torch.equal(tiny_model.conv1.weight, frozen["before"])


def test_weights_that_were_loaded_between_steps_are_the_ones_used(tiny_model, tiny_preprocessing):
    other = {name: value * 0.5 for name, value in tiny_model.state_dict().items()}

    def before(number, model, optimizer):
        if number == 5:
            model.load_state_dict(other)

    both(tiny_model, tiny_preprocessing, 1e-2, dtype=torch.bfloat16, num_steps=7, before=before)


def test_a_run_resumed_from_weights_and_velocities_is_the_same_run(tiny_model, tiny_preprocessing):
    whole = copy.deepcopy(tiny_model)
    run(GraphedStep(StandIn()), whole, tiny_preprocessing, num_steps=10, dtype=torch.bfloat16)
    optimizer, _ = run(GraphedStep(StandIn()), tiny_model, tiny_preprocessing, num_steps=6, dtype=torch.bfloat16)
    saved = copy.deepcopy((tiny_model.state_dict(), optimizer.state_dict()))
    resumed = copy.deepcopy(tiny_model)

    def restore(number, model, optimizer):
        if number == 0:
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])

    run(GraphedStep(StandIn()), resumed, tiny_preprocessing, num_steps=4, dtype=torch.bfloat16, before=restore)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_results_of_earlier_steps_are_not_overwritten(tiny_model, tiny_preprocessing):
    _, results = run(GraphedStep(StandIn()), tiny_model, tiny_preprocessing, num_steps=8)
    assert len({result.loss.item() for result in results}) == 8


def test_without_cuda_steps_are_eager_and_the_reason_is_told_once(tiny_model, tiny_preprocessing):
    eager = copy.deepcopy(tiny_model)
    run(train_step, eager, tiny_preprocessing, num_steps=2)
    told = []
    step = GraphedStep(on_fallback=told.append)
    run(step, tiny_model, tiny_preprocessing, num_steps=2)
    assert told == [step.reason] == ["CUDA graphs need a CUDA device, and this is cpu"]
    assert all(torch.equal(p, eager.get_parameter(name)) for name, p in tiny_model.named_parameters())


def test_a_step_that_cannot_be_captured_is_done_eagerly_and_no_update_is_lost(tiny_model, tiny_preprocessing):
    eager = copy.deepcopy(tiny_model)
    expected, _ = run(train_step, eager, tiny_preprocessing)
    step = GraphedStep(StandIn(RuntimeError("not permitted\nmore")))
    optimizer, _ = run(step, tiny_model, tiny_preprocessing)
    assert step.reason == "the step cannot be captured: not permitted"
    assert_same(tiny_model, eager, optimizer, expected, 1e-5)


def test_an_optimizer_without_device_rates_is_named(tiny_model, tiny_preprocessing):
    step = GraphedStep(StandIn())
    optimizer = torch.optim.Adam(tiny_model.parameters())
    step(
        tiny_model.train(),
        optimizer,
        make_batch(),
        preprocessing=tiny_preprocessing,
        dropout_masks=masks(),
        micro_batch_size=12,
        label_smoothing=0.0,
        device=CPU,
        dtype=torch.float32,
    )
    assert step.reason == "Adam has no update with rates on the device"

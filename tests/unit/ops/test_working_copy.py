"""bfloat16 copies of weights: used while they are right, never afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from alexnet.ops import native, working_copy
from alexnet.ops.working_copy import in_dtype, set_gradient_dtype, working_copies
from alexnet.training.optimizer import MomentumSGD


@pytest.fixture(autouse=True)
def _every_weight_is_large(monkeypatch):
    monkeypatch.setattr(working_copy, "_MINIMUM_ELEMENTS", 1)


@pytest.fixture
def weight():
    return nn.Parameter(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))


def held(weight):
    return working_copy.working_copy(weight, torch.bfloat16)


def kept_copies(*weights):
    return working_copies(weights, torch.bfloat16, keep=True)


def test_the_copy_is_used_as_long_as_the_weight_stays(weight):
    with kept_copies(weight):
        first = held(weight)
        assert torch.equal(first, weight.bfloat16())
    with kept_copies(weight), torch.no_grad():
        assert held(weight) is first
        assert in_dtype(weight, torch.bfloat16) is first


def test_outside_nothing_relies_on_a_copy(weight):
    """torch's fused SGD changes weights without raising their version."""
    with kept_copies(weight):
        pass
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.1, fused=True).step()
    assert torch.equal(in_dtype(weight, torch.bfloat16), weight.bfloat16())


@pytest.mark.parametrize("keep", [True, False])
def test_a_copy_made_for_one_use_is_not_kept(weight, keep):
    with working_copies([weight], torch.bfloat16, keep=keep):
        assert held(weight) is not None
    assert (held(weight) is not None) == keep


@pytest.mark.parametrize("change", ["in place", "load"])
def test_a_changed_weight_is_not_mistaken_for_its_copy(weight, change):
    with kept_copies(weight):
        if change == "in place":
            with torch.no_grad():
                weight.mul_(2)
        else:
            layer = nn.Linear(5, 6)
            layer.weight = weight
            layer.load_state_dict({"weight": torch.ones(6, 5), "bias": torch.zeros(6)})
        assert held(weight) is None
        assert torch.equal(in_dtype(weight, torch.bfloat16), weight.bfloat16())


def test_it_stays_with_its_weight(weight):
    with kept_copies(weight):
        assert held(copy.deepcopy(weight)) is None
        assert working_copy.working_copy(weight, torch.float16) is None


def test_small_weights_get_none(weight, monkeypatch):
    monkeypatch.setattr(working_copy, "_MINIMUM_ELEMENTS", 31)
    with kept_copies(weight):
        assert held(weight) is None


def test_gradients_are_those_of_casting_at_each_use(weight):
    images = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).bfloat16()
    (images @ weight.bfloat16().t()).square().sum().backward()
    expected, weight.grad = weight.grad, None
    for dtype in (torch.float32, torch.bfloat16):
        weight.grad = None
        set_gradient_dtype(weight, dtype)
        with kept_copies(weight):
            (images @ in_dtype(weight, torch.bfloat16).t()).square().sum().backward()
        assert weight.grad.dtype == dtype
        assert torch.equal(weight.grad.float(), expected)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("rule", ["krizhevsky_2012", "sgd"])
@pytest.mark.parametrize("layout", ["matrix", "channels-last"])
def test_the_optimiser_updates_weight_and_copy_together(rule, kernels, layout, monkeypatch):
    if kernels and not native.AVAILABLE:
        pytest.skip("the C kernels were not built (no compiler)")
    generator = torch.Generator().manual_seed(2)
    shape = (300, 257) if layout == "matrix" else (40, 30, 5, 5)
    start = torch.randn(shape, generator=generator)
    if layout == "channels-last":
        start = start.contiguous(memory_format=torch.channels_last)
    weight, exact = nn.Parameter(start.clone()), nn.Parameter(start.double())
    with kept_copies(weight):
        before = held(weight)
    ours, reference = (MomentumSGD([p], lr=0.1, momentum=0.9, weight_decay=0.01, rule=rule) for p in (weight, exact))
    monkeypatch.setattr(native, "AVAILABLE", kernels)
    for step in range(3):
        gradient = torch.randn(shape, generator=generator).bfloat16()
        set_gradient_dtype(weight, torch.bfloat16)
        weight.grad = torch.empty_like(weight, dtype=torch.bfloat16).copy_(gradient)
        exact.grad = torch.empty_like(exact).copy_(gradient)
        for optimizer in (ours, reference):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.step()
    torch.testing.assert_close(weight.detach().double(), exact.detach(), rtol=1e-5, atol=1e-6)
    assert held(weight) is before
    assert torch.equal(before, weight.bfloat16())

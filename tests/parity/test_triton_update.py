"""Triton's parameter update against the optimiser; on a GPU where there is one, else interpreted."""

import pytest
import torch

from alexnet.ops.triton_runtime import can_run
from alexnet.ops.triton_update import supports, update_parameter, update_parameter_reference
from alexnet.training.optimizer import MomentumSGD

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
KERNEL = pytest.param(
    update_parameter,
    marks=pytest.mark.skipif(not can_run(DEVICE), reason="Triton is not installed or does not run here"),
)
SHAPES = [(3000,), (7, 5), (6, 5, 3, 3)]


def tensors(shape, dtype=torch.float32, steps=4):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    if len(shape) == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    gradients = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for _ in range(steps)]
    return weight.to(DEVICE), gradients


@pytest.mark.parametrize("update", [KERNEL, update_parameter_reference])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("rule", ["krizhevsky_2012", "sgd"])
def test_updates_are_the_optimisers(update, rule, on_device, weight_decay, shape):
    weight, gradients = tensors(shape)
    parameter = torch.nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    optimizer = MomentumSGD([parameter], lr=0.1, momentum=0.9, weight_decay=weight_decay, rule=rule)
    velocity = torch.zeros_like(weight)
    for number, gradient in enumerate(gradients):
        lr = 0.1 / (1 + number)
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = gradient
        optimizer.step()
        given = torch.tensor([lr], device=DEVICE) if on_device else lr
        update(weight, velocity, gradient, lr=given, momentum=0.9, weight_decay=weight_decay, rule=rule)
        torch.testing.assert_close(weight, parameter.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(velocity, optimizer.state[parameter]["velocity"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("update", [KERNEL, update_parameter_reference])
def test_a_bfloat16_gradient_and_a_bfloat16_copy(update):
    weight, (gradient,) = tensors((6, 5, 3, 3), torch.bfloat16, steps=1)
    expected, velocity = weight.clone(), torch.zeros_like(weight)
    shadow = torch.zeros_like(weight, dtype=torch.bfloat16)
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    update(weight, velocity, gradient, shadow=shadow, **settings)
    update_parameter_reference(expected, torch.zeros_like(weight), gradient.float(), **settings)
    torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-6)
    # One unit: the interpreter rounds towards zero.
    torch.testing.assert_close(shadow.float(), weight, rtol=2**-7, atol=0)


@pytest.mark.skipif(not can_run(DEVICE), reason="Triton is not installed or does not run here")
def test_a_gradient_in_another_layout_is_taken():
    weight, (gradient,) = tensors((6, 5, 3, 3), steps=1)
    other = weight.clone()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    update_parameter(weight, torch.zeros_like(weight), gradient.contiguous(), **settings)
    channels_last = gradient.contiguous(memory_format=torch.channels_last)
    update_parameter(other, torch.zeros_like(other), channels_last, **settings)
    assert torch.equal(weight, other)


@pytest.mark.skipif(not can_run(DEVICE), reason="Triton is not installed or does not run here")
def test_what_is_not_taken():
    weight, _ = tensors((6, 5))
    assert supports(weight) and not supports(weight.bfloat16()) and not supports(weight[:, :3])

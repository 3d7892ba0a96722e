"""The update rule of paper 5, held against its closed form, Caffe's form and torch's."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from alexnet.config import OptimizerConfig, ScheduleConfig
from alexnet.errors import UserError
from alexnet.ops.working_copy import working_copies, working_copy
from alexnet.training.optimizer import MomentumSGD, build_optimizer, parameter_groups, set_learning_rates
from alexnet.training.schedules import Progress

DOUBLE = {"dtype": torch.float64}


def small_net():
    torch.manual_seed(0)
    net = nn.Module()
    net.conv1 = nn.Conv2d(3, 4, 3)
    net.norm = nn.BatchNorm2d(4)
    net.fc8 = nn.Linear(5, 2)
    return net


def run(optimizer, parameter, gradients, rates):
    """The parameter after each update."""
    trace = []
    for gradient, lr in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr
        parameter.grad = gradient.clone()
        optimizer.step()
        trace.append(parameter.detach().clone())
    return trace


RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001]
GRADIENTS = list(torch.randn(6, 7, generator=torch.Generator().manual_seed(3), **DOUBLE))
START = torch.randn(7, generator=torch.Generator().manual_seed(4), **DOUBLE)


def test_the_update_is_the_papers_across_learning_rate_changes():
    parameter = nn.Parameter(START.clone())
    trace = run(MomentumSGD([parameter], momentum=0.9, weight_decay=5e-4), parameter, GRADIENTS, RATES)
    w, v = START.clone(), torch.zeros(7, **DOUBLE)
    for step, (gradient, lr) in enumerate(zip(GRADIENTS, RATES, strict=True)):
        v = 0.9 * v - 0.0005 * lr * w - lr * gradient
        w = w + v
        assert torch.allclose(trace[step], w, rtol=1e-13, atol=0)


def test_it_equals_caffes_history_form():
    # Caffe: history = momentum * history + lr * (gradient + decay * w); w -= history.
    parameter = nn.Parameter(START.clone())
    trace = run(MomentumSGD([parameter], momentum=0.9, weight_decay=5e-4), parameter, GRADIENTS, RATES)
    w, history = START.clone(), torch.zeros(7, **DOUBLE)
    for step, (gradient, lr) in enumerate(zip(GRADIENTS, RATES, strict=True)):
        history = 0.9 * history + lr * (gradient + 5e-4 * w)
        w = w - history
        assert torch.allclose(trace[step], w, rtol=1e-13, atol=0)


def test_torchs_sgd_agrees_until_the_learning_rate_changes_and_not_after():
    ours, theirs = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    our_trace = run(MomentumSGD([ours], **settings), ours, GRADIENTS, RATES)
    their_trace = run(torch.optim.SGD([theirs], **settings), theirs, GRADIENTS, RATES)
    for step in range(3):
        assert torch.allclose(our_trace[step], their_trace[step], rtol=1e-12)
    assert not torch.allclose(our_trace[3], their_trace[3], rtol=1e-3)


def test_torchs_sgd_agrees_throughout_when_its_buffer_is_rescaled():
    ours, theirs = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    our_trace = run(MomentumSGD([ours], momentum=0.9, weight_decay=5e-4), ours, GRADIENTS, RATES)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step, gradient in enumerate(GRADIENTS):
        if step and RATES[step] != RATES[step - 1]:
            sgd.state[theirs]["momentum_buffer"] *= RATES[step - 1] / RATES[step]
        run(sgd, theirs, [gradient], [RATES[step]])
        assert torch.allclose(our_trace[step], theirs, rtol=1e-12)


def test_large_tensors_are_updated_like_small_ones():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1300, 900, generator=generator)  # more than two chunks, the last one partial
    gradients = [torch.randn(1300, 900, generator=generator) for _ in range(3)]
    parameter = nn.Parameter(start.clone())
    optimizer = MomentumSGD([parameter], momentum=0.9, weight_decay=5e-4)
    trace = run(optimizer, parameter, gradients, [0.1, 0.01, 0.01])
    w, v = start.double(), torch.zeros(1300, 900, **DOUBLE)
    for gradient, lr in zip(gradients, [0.1, 0.01, 0.01], strict=True):
        v = 0.9 * v - 5e-4 * lr * w - lr * gradient
        w = w + v
    assert torch.allclose(trace[-1].double(), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient_layout", [torch.channels_last, torch.contiguous_format])
def test_channels_last_weights_are_updated_whatever_the_gradients_layout(gradient_layout):
    weight = nn.Parameter(torch.randn(8, 6, 3, 3).contiguous(memory_format=torch.channels_last))
    before = weight.detach().clone()
    gradient = torch.randn(8, 6, 3, 3)
    weight.grad = gradient.contiguous(memory_format=gradient_layout)
    MomentumSGD([weight], lr=0.5, momentum=0.9, weight_decay=0).step()
    assert torch.allclose(weight.detach(), before - 0.5 * gradient)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_frozen_parameter_keeps_its_value_and_its_velocity():
    parameter = nn.Parameter(START.clone())
    optimizer = MomentumSGD([parameter], momentum=0.9, weight_decay=5e-4)
    run(optimizer, parameter, GRADIENTS[:1], [0.1])
    value, velocity = parameter.detach().clone(), optimizer.state[parameter]["velocity"].clone()
    run(optimizer, parameter, GRADIENTS[1:2], [0.0])
    assert torch.equal(parameter.detach(), value)
    assert torch.equal(optimizer.state[parameter]["velocity"], velocity)


def test_the_state_survives_saving():
    a, b = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    first = MomentumSGD([a], momentum=0.9, weight_decay=5e-4)
    run(first, a, GRADIENTS[:3], RATES[:3])
    second = MomentumSGD([b], momentum=0.9, weight_decay=5e-4)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    b.data.copy_(a.data)
    run(first, a, GRADIENTS[3:], RATES[3:])
    run(second, b, GRADIENTS[3:], RATES[3:])
    assert torch.equal(a, b)


@pytest.mark.parametrize("saved", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_velocity_is_laid_out_as_its_weight_wherever_it_was_saved(saved, layout):
    """A divided network's velocities are put together contiguous; each way of sharing has its own layout of kernels."""
    weight = nn.Parameter(torch.randn(8, 6, 3, 3).contiguous(memory_format=layout))
    optimizer = MomentumSGD([weight])
    state = optimizer.state_dict()
    velocity = torch.randn(8, 6, 3, 3).contiguous(memory_format=saved)
    optimizer.load_state_dict({**state, "state": {0: {"velocity": velocity}}})
    loaded = optimizer.state[weight]["velocity"]
    assert torch.equal(loaded, velocity) and loaded.stride() == weight.stride()


def groups_by_name(config=None):
    return {group["name"]: group for group in parameter_groups(small_net(), config or OptimizerConfig())}


def test_biases_learn_at_twice_the_rate_and_do_not_decay():
    groups = groups_by_name(OptimizerConfig(lr=0.01, bias_lr_factor=2, weight_decay=5e-4))
    assert groups["conv1.weight"]["base_lr"] == 0.01 and groups["conv1.weight"]["weight_decay"] == 5e-4
    assert groups["conv1.bias"]["base_lr"] == 0.02 and groups["conv1.bias"]["weight_decay"] == 0
    assert groups["norm.weight"]["weight_decay"] == 0


def test_torchvisions_recipe_decays_everything():
    groups = groups_by_name(OptimizerConfig(decay_biases=True, bias_lr_factor=1))
    assert {group["weight_decay"] for group in groups.values()} == {5e-4}
    assert {group["base_lr"] for group in groups.values()} == {0.01}


def test_a_layer_can_have_its_own_decay_and_rate():
    groups = groups_by_name(OptimizerConfig(layers={"fc8": {"weight_decay": 0.03, "lr_factor": 10}}))
    assert groups["fc8.weight"]["weight_decay"] == 0.03 and groups["fc8.weight"]["base_lr"] == pytest.approx(0.1)
    assert groups["fc8.bias"]["weight_decay"] == 0 and groups["fc8.bias"]["base_lr"] == pytest.approx(0.2)
    assert groups["conv1.weight"]["weight_decay"] == 5e-4


def test_an_unknown_layer_is_refused_by_name():
    with pytest.raises(UserError, match=r"optimizer\.layers\.fc9.*conv1, fc8"):
        parameter_groups(small_net(), OptimizerConfig(layers={"fc9": {}}))


def test_each_group_gets_its_own_schedule():
    schedule = ScheduleConfig(
        name="steps",
        milestones=[25, 51, 79],
        factors=[0.1, 0.01, 0.001],
        bias={"name": "constant"},
        layers={"conv1": {"name": "steps", "milestones": [25, 51, 67, 72], "factors": [0.1, 0.01, 0.001, 0]}},
    )
    optimizer = build_optimizer(small_net(), OptimizerConfig())

    def rates(epoch):
        set_learning_rates(optimizer, schedule, Progress(epoch, epoch / 91), 1e-4)
        return {group["name"]: group["lr"] for group in optimizer.param_groups}

    assert rates(70)["conv1.weight"] == pytest.approx(1e-5)
    assert rates(70)["fc8.weight"] == pytest.approx(1e-4)
    assert rates(70)["fc8.bias"] == pytest.approx(0.02)  # never dropped (paper.md 3.2)
    assert rates(70)["conv1.bias"] == pytest.approx(0.02)  # until the layer is frozen
    assert rates(72)["conv1.weight"] == 0 and rates(72)["conv1.bias"] == 0
    assert rates(80)["fc8.weight"] == pytest.approx(1e-5)


def test_the_biases_of_a_layer_may_have_their_own_schedule():
    conv1 = {"name": "steps", "milestones": [51], "factors": [0.1]}
    biases = {"name": "constant", "layers": {"conv1": conv1}}
    schedule = ScheduleConfig(bias=biases, layers={"fc8": {"freeze_epoch": 60}})
    optimizer = build_optimizer(small_net(), OptimizerConfig())

    def rates(epoch):
        set_learning_rates(optimizer, schedule, Progress(epoch, epoch / 91), 1e-4)
        return {group["name"]: group["lr"] for group in optimizer.param_groups}

    assert (rates(50)["conv1.bias"], rates(50)["fc8.bias"]) == (0.02, 0.02)
    assert (rates(51)["conv1.bias"], rates(51)["fc8.bias"]) == (pytest.approx(0.002), 0.02)
    assert (rates(51)["conv1.weight"], rates(51)["fc8.weight"]) == (0.01, 0.01)
    assert rates(60)["fc8.bias"] == 0, "frozen with its weights"


def test_lars_gives_each_parameter_a_rate_of_its_own():
    weight, bias = nn.Parameter(START.clone()), nn.Parameter(torch.zeros(7, **DOUBLE))
    optimizer = MomentumSGD([weight, bias], momentum=0.9, weight_decay=5e-4, rule="lars", lars_eta=0.002)
    w, v = START.clone(), torch.zeros(7, **DOUBLE)
    for gradient, lr in zip(GRADIENTS, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        weight.grad, bias.grad = gradient.clone(), gradient.clone()
        first_bias = bias.detach().clone()
        optimizer.step()
        rate = lr * 0.002 * w.norm() / (gradient.norm() + 5e-4 * w.norm())
        v = 0.9 * v - rate * (gradient + 5e-4 * w)
        w = w + v
        assert torch.allclose(weight.detach(), w, rtol=1e-12, atol=0)
        if not first_bias.any():  # a parameter of zeros would otherwise stay one
            assert torch.allclose(bias.detach(), -lr * 0.002 * gradient, rtol=1e-12, atol=0)


def test_lars_does_not_depend_on_the_scale_of_the_loss():
    ends = []
    for scale in (1.0, 1000.0):
        parameter = nn.Parameter(START.clone())
        ends.append(run(MomentumSGD([parameter], weight_decay=0.0, rule="lars"), parameter,
                        [scale * gradient for gradient in GRADIENTS], RATES)[-1])  # fmt: skip
    assert torch.allclose(*ends, rtol=1e-5)


def test_lars_decays_a_parameter_whose_gradient_is_noise_by_its_proportion():
    """A bias before a batch norm, whose gradient is zero but for rounding: conv5's in `bn`."""
    bias = nn.Parameter(torch.full((256,), 0.1))
    optimizer = MomentumSGD([bias], lr=10.0, momentum=0.0, weight_decay=5e-4, rule="lars", lars_eta=0.001)
    for step in range(1, 6):
        bias.grad = 1e-9 * torch.randn(256, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        assert torch.allclose(bias.detach(), torch.full((256,), 0.1 * (1 - 10.0 * 0.001) ** step), rtol=1e-3)


def test_lars_keeps_the_working_copy_up_to_date():
    parameter = nn.Parameter(torch.randn(2048, 1024))
    with working_copies([parameter], torch.bfloat16, keep=True):
        parameter.grad = torch.randn(2048, 1024)
        MomentumSGD([parameter], lr=10.0, rule="lars").step()
        assert torch.equal(working_copy(parameter, torch.bfloat16), parameter.detach().bfloat16())


def test_a_training_is_begun_without_torchs_compiler():
    """Its import takes most of a second, of every start and of the first checkpoint."""
    program = """
import sys, torch
from alexnet.config import RuntimeConfig
from alexnet.runtime.device import configure
from alexnet.training.optimizer import MomentumSGD
configure(RuntimeConfig())
weight = torch.nn.Parameter(torch.ones(2))
optimizer = MomentumSGD([weight])
optimizer.zero_grad()
weight.sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

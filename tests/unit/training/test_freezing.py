"""Frozen layers: nothing about them changes, and nothing is computed for them backward."""

import copy
from dataclasses import replace

import pytest
import torch
from test_step import CPU, make_batch, masks

from alexnet.config import OptimizerConfig
from alexnet.config_io import from_toml_text
from alexnet.models import build_network
from alexnet.models.architecture import BatchNorm
from alexnet.training.freezing import freeze_by_rate, is_frozen_from_the_start
from alexnet.training.graphed_step import GraphedStep
from alexnet.training.optimizer import build_optimizer, parameter_groups
from alexnet.training.step import train_step


def take_steps(step, model, preprocessing, layers, count=3, dtype=torch.float32):
    """Steps with the rates of some layers at 0; returns the optimiser."""
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-3, layers={name: {"lr_factor": 0.0} for name in layers}))
    for _ in range(count):
        model.train()
        freeze_by_rate(model, optimizer)
        step(
            model,
            optimizer,
            make_batch(),
            preprocessing=preprocessing,
            dropout_masks=masks(),
            micro_batch_size=12,
            label_smoothing=0.0,
            device=CPU,
            dtype=dtype,
        )
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_layers_stay_and_get_no_gradient(tiny_model, tiny_preprocessing, dtype):
    before = copy.deepcopy(tiny_model.state_dict())
    take_steps(train_step, tiny_model, tiny_preprocessing, ["conv1", "fc7"], dtype=dtype)
    for name, parameter in tiny_model.named_parameters():
        is_frozen = name.startswith(("conv1", "fc7"))
        assert torch.equal(parameter, before[name]) is is_frozen, name
        assert (parameter.grad is None) is is_frozen, name


def test_nothing_is_computed_backward_below_the_first_layer_that_learns(tiny_model, tiny_preprocessing):
    optimizer = build_optimizer(tiny_model, OptimizerConfig(layers={"conv1": {"lr_factor": 0.0}}))
    freeze_by_rate(tiny_model, optimizer)
    outputs = tiny_model.activations(torch.randn(2, 3, 16, 16))
    assert not outputs["conv1"].requires_grad and not outputs["pool1"].requires_grad
    assert outputs["fc7"].requires_grad and outputs["fc8"].requires_grad


def test_the_layers_that_learn_learn_as_if_nothing_were_frozen(tiny_model, tiny_preprocessing):
    other = copy.deepcopy(tiny_model)
    take_steps(train_step, tiny_model, tiny_preprocessing, [], count=1)
    take_steps(train_step, other, tiny_preprocessing, ["conv1", "fc7"], count=1)
    assert torch.equal(tiny_model.fc8.weight, other.fc8.weight)


def test_a_layer_may_thaw(tiny_model, tiny_preprocessing):
    take_steps(train_step, tiny_model, tiny_preprocessing, ["conv1"])
    before = tiny_model.conv1.weight.detach().clone()
    take_steps(train_step, tiny_model, tiny_preprocessing, ["fc8"])
    assert not torch.equal(tiny_model.conv1.weight, before)


def test_a_step_with_everything_frozen_changes_nothing(tiny_model, tiny_preprocessing):
    before = copy.deepcopy(tiny_model.state_dict())
    take_steps(train_step, tiny_model, tiny_preprocessing, ["conv1", "fc7", "fc8"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())


def normed_model(tiny_model):
    layers = tiny_model.architecture.layers
    with_norm = (layers[0], BatchNorm("bn1", eps=1e-5, momentum=0.1), *layers[1:])
    return build_network(replace(tiny_model.architecture, layers=with_norm), 4, seed=1)


def test_a_frozen_batch_norm_keeps_its_statistics_and_uses_them(tiny_model, tiny_preprocessing):
    model = normed_model(tiny_model)
    take_steps(train_step, model, tiny_preprocessing, [])
    before = copy.deepcopy(model.bn1.state_dict())
    take_steps(train_step, model, tiny_preprocessing, ["conv1", "bn1"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.bn1.state_dict().items())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():  # in the midst of a step it does what it does in evaluation
        in_training = model.activations(images, ["bn1"])["bn1"]
        assert torch.equal(in_training, model.eval().activations(images, ["bn1"])["bn1"])


def test_a_batch_norm_that_learns_goes_on_counting(tiny_model, tiny_preprocessing):
    model = normed_model(tiny_model)
    take_steps(train_step, model, tiny_preprocessing, ["conv1"])
    assert model.bn1.num_batches_tracked == 3 and model.bn1.training


class Eager:
    """In place of a CUDA graph: every call is an ordinary one."""

    def eagerly(self, function, inputs):
        return function(inputs)

    def capture(self, function, inputs):
        result = (torch.zeros(()), torch.zeros((), dtype=torch.int64))

        def replay():
            for kept, value in zip(result, function(inputs), strict=True):
                kept.copy_(value)

        return replay, result


def test_the_graphed_step_freezes_alike(tiny_model, tiny_preprocessing):
    """Its bfloat16 copies take no gradient either."""
    before = copy.deepcopy(tiny_model.state_dict())
    step = GraphedStep(Eager())
    take_steps(step, tiny_model, tiny_preprocessing, ["conv1"], count=6, dtype=torch.bfloat16)
    assert step.is_captured
    shadows = step._bound.shadows
    assert not shadows["conv1.weight"].requires_grad and shadows["conv1.weight"].grad is None
    assert shadows["fc8.weight"].requires_grad and shadows["fc8.weight"].grad is not None
    assert torch.equal(tiny_model.conv1.weight, before["conv1.weight"])
    assert not torch.equal(tiny_model.fc8.weight, before["fc8.weight"])


def test_copied_layers_have_a_share_of_the_rate(tiny_model):
    config = OptimizerConfig(lr=0.01, bias_lr_factor=2, copied_lr_factor=0.1, layers={"fc7": {"lr_factor": 0.5}})
    rates = {g["name"]: g["base_lr"] for g in parameter_groups(tiny_model, config, ("conv1", "fc7"))}
    assert rates["conv1.weight"] == pytest.approx(0.001) and rates["conv1.bias"] == pytest.approx(0.002)
    assert rates["fc7.weight"] == pytest.approx(0.0005)  # both factors
    assert rates["fc8.weight"] == 0.01 and rates["fc8.bias"] == 0.02


@pytest.mark.parametrize(
    ("text", "copied", "frozen"),
    [
        ("", (), False),
        ("[optimizer.layers.conv1]\nlr_factor = 0.0", (), True),
        ("[optimizer]\ncopied_lr_factor = 0.0", ("conv1",), True),
        ("[optimizer]\ncopied_lr_factor = 0.0", ("fc7",), False),
        ("[schedule]\nfreeze_epoch = 0", (), True),
        ("[schedule.layers.conv1]\nfreeze_epoch = 0", (), True),
        ("[schedule.layers.fc7]\nfreeze_epoch = 0", (), False),
        ("[schedule]\nname = 'steps'\nmilestones = [0]\nfactors = [0]", (), True),
        ("[schedule]\nfreeze_epoch = 1", (), False),
    ],
)
def test_which_layers_never_learn(text, copied, frozen):
    assert is_frozen_from_the_start(from_toml_text(text), "conv1", copied) is frozen

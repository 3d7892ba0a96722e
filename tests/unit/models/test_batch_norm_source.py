"""The variant `bn` and its recipes against the numbers of their source.

Source: borisgin/nvcaffe-0.16, models/alexnet_bn at 8896d33: train_val.prototxt (network, initial values, inputs),
solver_8K.prototxt and solver_32k.prototxt (which train train_val2_fp16.prototxt; the recipes' headers say so).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alexnet.config_io import load_recipe
from alexnet.models import ARCHITECTURES, build_network
from alexnet.models.architecture import BatchNorm, Convolution, Dropout, Linear, MaxPool, ReLU
from alexnet.training.optimizer import parameter_groups
from alexnet.training.schedules import Progress, rate_factor, warmup_factor

BN = ARCHITECTURES["bn"]
IMAGES = 1_281_167
SCALE = 0.00390625  # transform_param.scale: 1/256
EPS = 0.0001  # batch_norm_param.eps, of every norm

# name: outputs, kernel, stride, pad, groups, std of weight_filler, bias_filler (None: bias_term false).
CONVOLUTIONS = {
    "conv1": (96, 11, 4, 0, 1, 0.01, None),
    "conv2": (256, 5, 1, 2, 2, 0.01, None),
    "conv3": (384, 3, 1, 1, 1, 0.01, None),
    "conv4": (384, 3, 1, 1, 2, 0.01, None),
    "conv5": (256, 3, 1, 1, 2, 0.01, 0.1),
}
# name: outputs, std of weight_filler, bias_filler.
LINEAR = {"fc6": (4096, 0.005, 0.1), "fc7": (4096, 0.005, 0.1), "fc8": (None, 0.01, 0.0)}
# file: base_lr, rampup_lr, rampup_interval, max_iter, images per iteration (batch_size * iter_size).
SOLVERS = {"bn-8k": (10, 1, 600, 15_600, 8192), "bn-32k": (32, 1, 400, 4_000, 4 * 8192)}


def layers_of(kind: type) -> dict[str, object]:
    return {layer.name: layer for layer in BN.layers if isinstance(layer, kind)}


def test_the_layers_are_those_of_the_prototxt_in_its_order() -> None:
    order = "conv1 bn1 relu1 pool1 conv2 bn2 relu2 pool2 conv3 bn3 relu3 conv4 bn4 relu4 conv5 bn5 relu5 pool5"
    assert [layer.name for layer in BN.layers] == f"{order} fc6 relu6 drop6 fc7 relu7 drop7 fc8".split()
    assert layers_of(Convolution) == {
        name: Convolution(name, outputs, kernel, stride, pad, groups, bias=bias is not None)
        for name, (outputs, kernel, stride, pad, groups, _, bias) in CONVOLUTIONS.items()
    }
    assert layers_of(Linear) == {name: Linear(name, outputs) for name, (outputs, _, _) in LINEAR.items()}
    # Caffe rounds the extent of pools up; dropout_ratio 0.5, with the kept units doubled in training.
    assert layers_of(MaxPool) == {name: MaxPool(name, 3, 2, ceil_mode=True) for name in ("pool1", "pool2", "pool5")}
    assert layers_of(Dropout) == {name: Dropout(name, 0.5, "inverted") for name in ("drop6", "drop7")}
    assert list(layers_of(ReLU)) == [f"relu{i}" for i in range(1, 8)]
    # moving_average_fraction 0.9 is the weight of the old statistics, momentum that of the new ones.
    assert layers_of(BatchNorm) == {
        f"bn{i}": BatchNorm(f"bn{i}", eps=EPS / SCALE**2 if i == 1 else EPS, momentum=0.1) for i in range(1, 6)
    }


def test_the_inputs_are_those_of_the_prototxt() -> None:
    """mean_file, crop_size 227, OpenCV's order of channels; the scale is in the eps of the first norm."""
    assert (BN.image_size, BN.pad_right_bottom, BN.input_scale, BN.channel_order) == (227, 0, "pixels", "bgr")
    recipe = load_recipe("bn-8k")
    augment = recipe.augment
    assert (recipe.data.image_size, augment.crop, augment.flip, augment.mean) == (256, "random", True, "at_crop")
    assert (augment.crop_shared_by, augment.color_noise) == (1, 0)


def test_inputs_that_are_not_divided_give_the_outputs_and_gradients_of_divided_ones() -> None:
    """conv1 and bn1 of `bn` on pixels against torch's on pixels / 256 with the eps of the prototxt."""
    model = build_network("bn", 10, image_size=67).double().train()
    conv1, bn1 = model.get_submodule("conv1"), model.get_submodule("bn1")
    generator = torch.Generator().manual_seed(0)
    # Little contrast, so that the variance of conv1's outputs is near eps.
    images = 20 * torch.randn(4, 3, 67, 67, generator=generator, dtype=torch.float64)
    weight = dict(model.named_parameters())["conv1.weight"]
    plain = weight.detach().clone().requires_grad_()
    norm = nn.BatchNorm2d(96, eps=EPS, momentum=0.1).double()
    outputs, expected = bn1(conv1(images)), norm(F.conv2d(images * SCALE, plain, stride=4))
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    targets = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (outputs * targets).sum().backward()
    (expected * targets).sum().backward()
    torch.testing.assert_close(weight.grad, plain.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(dict(model.named_buffers())["bn1.running_mean"] * SCALE, norm.running_mean)
    # With the eps of the prototxt the outputs would be others.
    assert (nn.BatchNorm2d(96, eps=EPS).double()(conv1(images)) - expected).abs().max() > 0.1


def test_the_initial_values_are_those_of_the_prototxt() -> None:
    parameters = dict(build_network("bn", 1000, image_size=67).named_parameters())
    fillers = {name: row[-2:] for table in (CONVOLUTIONS, LINEAR) for name, row in table.items()}
    for name, (std, bias) in fillers.items():
        assert parameters[f"{name}.weight"].std().item() == pytest.approx(std, rel=0.02), name
        assert (f"{name}.bias" in parameters) is (bias is not None), name
        if bias is not None:
            assert parameters[f"{name}.bias"].unique().tolist() == [pytest.approx(bias)], name
    for i in range(1, 6):  # neither scale_filler nor bias_filler: 1 and 0
        assert parameters[f"bn{i}.weight"].eq(1).all() and parameters[f"bn{i}.bias"].eq(0).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_the_recipes_are_the_solver_files(name: str) -> None:
    base, start, rampup, iterations, images = SOLVERS[name]
    recipe = load_recipe(name)
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (recipe.model.name, recipe.train.batch_size, optimizer.lr) == ("bn", images, base)
    assert (optimizer.rule, optimizer.lars_eta, optimizer.momentum) == ("lars", 0.001, 0.9)
    assert schedule.warmup_start_factor * base == pytest.approx(start)
    assert schedule.warmup_epochs * IMAGES / images == pytest.approx(rampup, abs=0.5)
    assert (schedule.name, schedule.power) == ("poly", 2)
    # "100 epochs" in the comments, though the iterations are not quite as many.
    assert recipe.train.epochs == 100
    assert iterations * images / IMAGES == pytest.approx(100, rel=0.025)
    # No param has lr_mult or decay_mult: both are 1 for biases and for batch norm too.
    model = build_network("bn", 10, image_size=67)
    groups = parameter_groups(model, optimizer)
    assert {(group["base_lr"], group["weight_decay"]) for group in groups} == {(base, 0.0005)}


@pytest.mark.parametrize(("name", "lower"), [("bn-8k", 0.075), ("bn-32k", 0.19)])
def test_the_rate_follows_the_solver_but_for_what_the_header_says(name: str, lower: float) -> None:
    base, start, rampup, iterations, images = SOLVERS[name]
    recipe = load_recipe(name)

    def ours(iteration: int) -> float:
        progress = Progress(iteration * images / IMAGES, iteration / iterations)
        factor = rate_factor(recipe.schedule, progress) * warmup_factor(recipe.schedule, progress, 0)
        return factor * recipe.optimizer.lr

    def solver(iteration: int) -> float:
        if iteration < rampup:
            return start + (base - start) * iteration / rampup
        return base * (1 - iteration / iterations) ** 2

    for iteration in (rampup, iterations // 2, iterations - 1):
        assert ours(iteration) == pytest.approx(solver(iteration), rel=1e-3)
    assert ours(0) == pytest.approx(start)
    # The rise is multiplied by poly here.
    assert 1 - ours(rampup - 1) / solver(rampup - 1) == pytest.approx(lower, abs=0.005)


def test_checkpoints_from_before_keep_their_own_initialization() -> None:
    """Their records name the scheme "bn", which no variant has any more."""
    parameters = dict(build_network(replace(BN, initialization="bn"), 10, image_size=67).named_parameters())
    assert parameters["fc6.weight"].std().item() == pytest.approx(0.01, rel=0.02)

"""The chain rule that is written out for graphs without one, beside torch's own differentiation."""

import pytest
import torch
from export_stand_ins import EVERYTHING, small_checkpoint

from alexnet.exporting.packing import packed_model
from alexnet.exporting.web.gradients import score_gradient
from alexnet.exporting.web.insights import BEST_GUESS, Insights
from alexnet.models import Architecture
from alexnet.models.architecture import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Convolution,
    Dropout,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    SiLU,
    SpatialNorm,
    Tanh,
)
from alexnet.training.checkpoint import build_model
from alexnet.visualize import grad_cam, layer_activations

AFTER = {
    "max pooling that overlaps": [MaxPool("pool", size=3, stride=2, ceil_mode=True)],
    "max pooling that leaves a rest": [MaxPool("pool", size=2, stride=3, ceil_mode=False)],
    "mean pooling over the edge": [AveragePool("pool", size=3, stride=2, ceil_mode=True)],
    "mean pooling that divides by the window": [AveragePool("pool", 3, 2, ceil_mode=True, divisor="window")],
    "adaptive pooling of uneven parts": [AdaptiveAveragePool("pool", size=4)],
    "norm across maps": [ResponseNorm("norm", 5, alpha=0.3, beta=0.75, k=2.0, alpha_convention="mean")],
    "norm of towers and an even window": [
        ResponseNorm("norm", 4, alpha=0.1, beta=0.5, k=1.0, alpha_convention="sum", towers=2)
    ],
    "norm within maps": [SpatialNorm("norm", 3, alpha=0.4, beta=0.75, k=1.0, alpha_convention="mean")],
    "batch norm": [BatchNorm("bn", eps=1e-3, momentum=0.1)],
    "activations after pooling": [
        *(MaxPool("pool", 2, 2, False), Tanh("tanh"), AveragePool("mean", 2, 1, False), SiLU("silu"), ReLU("relu")),
    ],
    "dropout": [Dropout("drop", rate=0.3, scaling="original"), Dropout("other", rate=0.3, scaling="inverted")],
    "two fully-connected layers, one in groups": [
        Linear("fc1", 8, groups=2),
        ReLU("relu"),
        Dropout("d", 0.5, "original"),
    ],
}


def network(after):
    """A checkpoint whose layers after the last maps are those, and a last one."""
    return small_checkpoint(
        Architecture(
            name="short",
            summary="A network for tests.",
            source="none",
            image_size=21,
            pad_right_bottom=0,
            input_scale="unit",
            channel_order="rgb",
            initialization="torch_default",
            layers=(Convolution("conv", channels=8, kernel=3, stride=2), *after, Linear("last", None)),
        )
    )


@pytest.mark.parametrize("after", AFTER.values(), ids=list(AFTER))
def test_the_gradient_is_that_of_torch(after):
    model = build_model(network(after)).eval().requires_grad_(False)
    images = torch.randn(3, 3, 21, 21, generator=torch.Generator().manual_seed(1))
    outputs = model.activations(images)
    classes = torch.tensor([0, 3, 6])
    found = score_gradient(model, outputs, "conv", classes)
    maps = outputs["conv"].clone().requires_grad_()
    score = model.logits_after("conv", maps).gather(1, classes[:, None]).sum()
    (expected,) = torch.autograd.grad(score, [maps])
    assert expected.abs().max() > 0
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "architecture", [EVERYTHING, "torchvision", "cifar_11pct"], ids=["all", "torchvision", "local"]
)
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_the_insights_are_those_of_the_page(architecture, weights):
    checkpoint = small_checkpoint(architecture)
    side = checkpoint.preprocessing.image_size
    squares = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    insights = Insights(packed_model(checkpoint, weights), checkpoint.preprocessing)
    model = packed_model(checkpoint, weights)
    with torch.no_grad():
        found = dict(zip(insights.output_names, insights(squares, torch.tensor([4, BEST_GUESS, 0])), strict=True))
        inputs = insights.inputs(squares)
    best = int(found["probabilities"][1].argmax())
    heat = grad_cam(model, inputs, [4, best, 0])
    assert torch.allclose(found["heat"], heat, atol=1e-5 * float(heat.max()))
    names = [name for name in found if name not in ("probabilities", "heat")]
    assert names and not any(name.startswith("drop") for name in names)
    for name, outputs in layer_activations(model, inputs, names).items():
        assert torch.allclose(found[name], outputs, atol=1e-4), name

"""A strided convolution over blocks of pixels is the strided convolution."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from alexnet.models import ARCHITECTURES, build_network
from alexnet.ops.space_to_depth import conv2d_by_space_to_depth


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(227, 11, 4, 0), (224, 11, 4, 2), (67, 11, 4, 0), (31, 5, 2, 1), (16, 4, 4, 0), (17, 3, 3, 2)],
)
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_sums_and_gradients_are_those_of_the_direct_convolution(
    side: int, kernel: int, stride: int, padding: int, memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, side, side + 1, generator=generator, dtype=torch.float64).to(memory_format=memory_format)
    weight = torch.randn(8, 3, kernel, kernel, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(8, generator=generator, dtype=torch.float64).requires_grad_()
    expected = F.conv2d(images, weight, bias, stride, padding)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    expected_gradients = torch.autograd.grad(expected, (weight, bias), upstream)
    actual = conv2d_by_space_to_depth(images, weight, bias, stride, padding)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    for gradient, reference in zip(
        torch.autograd.grad(actual, (weight, bias), upstream), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", ["as_run", "caffe", "torchvision"])
def test_a_network_with_that_form_of_conv1_gives_the_same_logits(name: str) -> None:
    model = build_network(name, 5, seed=1).eval()
    scale = 60.0 if ARCHITECTURES[name].input_scale == "pixels" else 1.0
    images = torch.randn(1, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0)) * scale
    with torch.no_grad():
        direct = model(images)
        model.conv1_form = "space_to_depth"
        torch.testing.assert_close(model(images), direct, rtol=1e-4, atol=1e-4)
    assert dict(model.named_parameters())["conv1.weight"].shape[-1] == 11

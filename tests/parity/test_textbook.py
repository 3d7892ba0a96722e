"""The textbook network, which `alexnet benchmark` compares with, is the same network."""

import pytest
import torch
from torch.nn import functional as F

from alexnet.benchmark.textbook import TextbookNetwork
from alexnet.models import ARCHITECTURES, build_network

NUM_CLASSES = 7


def pair(name):
    """Both networks with the same weights, and an image, all in float64: no unit is decided by rounding."""
    ours = build_network(name, NUM_CLASSES, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in ours.named_parameters():
            if key.endswith("bias"):  # many begin at zero
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    plain = TextbookNetwork(ARCHITECTURES[name], NUM_CLASSES)
    plain.take_weights(
        {
            key: value.double() if value.is_floating_point() else value.clone()
            for key, value in ours.state_dict().items()
        }
    )
    scale = 60.0 if ours.architecture.input_scale == "pixels" else 1.0
    size = ours.image_size
    images = scale * torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    return ours, plain, images


def masks_of(model, count):
    generator = torch.Generator().manual_seed(11)
    return {
        name: torch.randint(2, (count, features), generator=generator).bool()
        for name, features in model.dropout_layers.items()
    }


@pytest.mark.parametrize("name", ["as_run", "paper", "torchvision"])
def test_logits_and_gradients_are_ours(name):
    ours, plain, images = pair(name)
    images = images[:1]
    masks = masks_of(ours, 1)
    labels = torch.tensor([4])
    logits = ours(images, masks)
    expected = plain(images, masks)
    torch.testing.assert_close(expected, logits, rtol=1e-9, atol=1e-12)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    plain_gradients = {key: parameter.grad for key, parameter in plain.layers.named_parameters()}
    for key, parameter in ours.named_parameters():
        gradient = plain_gradients[key]
        assert gradient.abs().max() > 0, key
        # Ours are float32, as the weights are.
        torch.testing.assert_close(
            parameter.grad.double(), gradient, rtol=1e-5, atol=1e-7 * float(gradient.abs().max())
        )


@pytest.mark.parametrize(
    "name",
    ["as_run", "caffe", "torchvision", "half", "no_communication", "cifar_18pct", "cifar_13pct", "cifar_11pct"],
)
def test_logits_in_evaluation_are_ours(name):
    ours, plain, images = pair(name)
    ours.eval()
    plain.eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(images), ours(images), rtol=1e-9, atol=1e-12)


def test_batch_statistics_are_ours():
    ours, plain, images = pair("bn")
    masks = masks_of(ours, 2)
    # torch's batch norm has no mixture of float64 images and float32 weights.
    ours.double()
    torch.testing.assert_close(plain(images, masks), ours(images, masks), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["as_run", "torchvision"])
def test_dropout_drops_at_the_rate_and_scale_of_the_variant(name):
    ours, plain, _ = pair(name)
    drop, ones = plain.layers["drop6"], torch.ones(1, 20000)
    assert ours.drop6.p == 0.5
    outputs = drop(ones)
    kept = 1.0 if name == "as_run" else 2.0
    assert set(outputs.unique().tolist()) == {0.0, kept}
    assert 0.45 < float((outputs == 0).float().mean()) < 0.55
    drop.eval()
    assert float(drop(ones).mean()) == (0.5 if name == "as_run" else 1.0)

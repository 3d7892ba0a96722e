import pytest
import torch
from networks_to_see import CLASSES, IMAGE_SIZE, random_inputs, small_model

from alexnet.errors import UserError
from alexnet.visualize.gradients import NOISE, input_gradients, saliency


def finite_differences(model, inputs, class_index, pixels, step=1e-6):
    """The slope of a logit at some of the inputs, counted as they lie, in float64."""
    nudges = torch.zeros(len(pixels), inputs.numel(), dtype=torch.float64)
    nudges[torch.arange(len(pixels)), pixels] = step
    nudges = nudges.reshape(-1, *inputs.shape[1:])
    with torch.no_grad():
        up, down = (model(inputs + sign * nudges)[:, class_index] for sign in (1, -1))
    return (up - down) / (2 * step)


def test_they_are_finite_differences():
    model, inputs = small_model().double(), random_inputs(seed=1).double()
    gradients = input_gradients(model, inputs, 2)
    pixels = torch.arange(0, inputs.numel(), 11)
    expected = finite_differences(model, inputs, 2, pixels)
    assert gradients.shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE) and gradients.dtype == torch.float32
    scale = float(expected.abs().max())
    assert scale > 0 and torch.allclose(gradients.flatten()[pixels].double(), expected, rtol=1e-4, atol=1e-6 * scale)
    assert torch.equal(saliency(gradients)[0], gradients[0].abs().max(dim=0).values)


def test_they_are_in_red_green_and_blue_whatever_the_network_takes():
    inputs = random_inputs()
    rgb, bgr = small_model(), small_model(channel_order="bgr")
    assert torch.equal(input_gradients(bgr, inputs, 0), input_gradients(rgb, inputs, 0).flip(1))


def test_several_classes_of_one_image_and_the_best_guess():
    model, inputs = small_model(), random_inputs()
    together = input_gradients(model, inputs, list(range(CLASSES)))
    for class_index in range(CLASSES):
        assert torch.allclose(together[class_index], input_gradients(model, inputs, class_index)[0], atol=1e-7)
    best = int(model(inputs).argmax())
    assert torch.allclose(input_gradients(model, inputs)[0], together[best], atol=1e-7)
    assert all(weight.grad is None for weight in model.parameters())
    with pytest.raises(UserError, match="There is no class -1"):
        input_gradients(model, inputs, -1)


def test_the_mean_over_noisy_copies_follows_from_the_seed():
    model, inputs = small_model(), random_inputs()
    smooth = input_gradients(model, inputs, 1, samples=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    noise = [torch.randn(inputs.shape, generator=generator) for _ in range(3)]
    deviation = NOISE * (inputs.max() - inputs.min())
    expected = torch.stack([input_gradients(model, inputs + deviation * one, 1) for one in noise]).mean(dim=0)
    assert torch.allclose(smooth, expected, atol=1e-7)
    assert torch.equal(smooth, input_gradients(model, inputs, 1, samples=3, seed=5))
    assert not torch.allclose(smooth, input_gradients(model, inputs, 1, samples=3, seed=6))

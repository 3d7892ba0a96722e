"""The strength of the signal layer by layer, and the reason for a flat loss that is read from it."""

import copy
from dataclasses import replace

import pytest
import torch

from alexnet.models import build_network
from alexnet.models.architecture import BatchNorm
from alexnet.training.signals import find_cause, measure_signals, slow_start


def images_like(scale, size, count=8, seed=0):
    """Smooth random images with an RMS of `scale`: like real ones, neighbouring pixels go together."""
    coarse = torch.randn(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return images * (scale / images.square().mean().sqrt())


def labels_of(count=8, num_classes=4):
    return torch.arange(count) % num_classes


def test_numbers_are_those_of_the_layers(tiny_model):
    images = images_like(60.0, 16)
    signals = measure_signals(tiny_model.train(), images, labels_of())
    with torch.no_grad():
        outputs = tiny_model.eval().activations(images)
    rows = {row.layer: row for row in signals.layers}
    assert list(rows) == list(outputs) and signals.num_images == 8
    assert rows["conv1"].rms == pytest.approx(float(outputs["conv1"].square().mean().sqrt()))
    deviations = outputs["fc8"] - outputs["fc8"].mean(dim=0)
    assert rows["fc8"].spread == pytest.approx(float(deviations.square().mean().sqrt()), rel=1e-5)
    dead = (outputs["relu7"] == 0).all(dim=0).float().mean()
    assert rows["relu7"].dead_share == pytest.approx(float(dead)) and rows["conv1"].dead_share is None
    tiny_model.zero_grad()
    loss = torch.nn.functional.cross_entropy(tiny_model(images), labels_of())
    loss.backward()
    assert signals.loss == pytest.approx(loss.item(), rel=1e-5)
    assert rows["conv1"].gradient_rms == pytest.approx(float(tiny_model.conv1.weight.grad.square().mean().sqrt()))


def test_measuring_changes_nothing(tiny_model):
    layers = tiny_model.architecture.layers
    with_norm = (layers[0], BatchNorm("bn1", eps=1e-5, momentum=0.1), *layers[1:])
    normed = replace(tiny_model.architecture, layers=with_norm)
    model = build_network(normed, 4, seed=1).train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    measure_signals(model, images_like(1.0, 16), labels_of())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("model", ["as_run", "caffe"])
def test_a_network_as_it_was_run_has_a_sound_signal(model):
    network = build_network(model, 4)
    signals = measure_signals(network, images_like(60.0, network.image_size, 4), labels_of(4))
    assert find_cause(signals, "pixels", 0.01) is None


def test_the_initialization_of_the_text_loses_the_signal_on_its_way():
    network = build_network("as_run", 4, initialization="paper")
    signals = measure_signals(network, images_like(60.0, 224, 4), labels_of(4))
    cause = find_cause(signals, "pixels", 0.01)
    assert cause is not None and cause.id == "vanishing-signal" and "fc7 0.0" in cause.what
    assert "model.initialization=as_run" in cause.remedy


def test_unit_scaled_inputs_are_named_before_what_follows_from_them(tiny_model):
    cause = find_cause(measure_signals(tiny_model, images_like(1.0, 16), labels_of()), "pixels", 0.01)
    assert cause is not None and cause.id == "input-scale" and "RMS of 1" in cause.what
    cause = find_cause(measure_signals(tiny_model, images_like(60.0, 16), labels_of()), "unit", 0.01)
    assert cause is not None and cause.id == "input-scale" and "RMS of 60" in cause.what


@pytest.mark.parametrize(
    ("change", "lr", "expected"),
    [
        (lambda model: model.fc7.bias.fill_(-1e4), 0.01, "dead-relu"),
        (lambda model: model.fc8.weight.mul_(1e4), 0.01, "large-logits"),
        (lambda model: model.conv1.weight.fill_(float("nan")), 0.01, "activations-not-finite"),
        (lambda model: model.fc7.weight.mul_(1e-6), 0.01, "vanishing-signal"),
        (lambda model: None, 1e-9, "lr-too-low"),
        (lambda model: None, 0.01, None),
    ],
)
def test_each_reason_is_told_from_the_others(tiny_model, change, lr, expected):
    with torch.no_grad():
        change(tiny_model)
    cause = find_cause(measure_signals(tiny_model, images_like(60.0, 16), labels_of()), "pixels", lr)
    assert (cause.id if cause else None) == expected


def test_one_image_says_nothing_about_what_differs_between_images(tiny_model):
    signals = measure_signals(tiny_model, images_like(60.0, 16, 1), labels_of(1))
    assert find_cause(signals, "pixels", 0.01) is None


def test_logits_that_have_not_come_apart_are_a_slow_start(tiny_model):
    images = images_like(60.0, 16)
    assert slow_start(measure_signals(tiny_model, images, labels_of())) is None
    with torch.no_grad():
        tiny_model.fc8.weight.mul_(1e-3)
    signals = measure_signals(tiny_model, images, labels_of())
    cause = slow_start(signals)
    assert cause is not None and cause.id == "slow-start" and f"{signals.logits.spread:.2g}" in cause.what

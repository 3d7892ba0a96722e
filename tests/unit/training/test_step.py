"""One weight update."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.config import OptimizerConfig
from alexnet.data.loader import Batch
from alexnet.runtime.randomness import draw_dropout_masks
from alexnet.training.averaging import WeightAverage
from alexnet.training.optimizer import build_optimizer
from alexnet.training.step import train_step

CPU = torch.device("cpu")


def make_batch(batch_size=12):
    generator = torch.Generator().manual_seed(5)
    return Batch(
        step=0,
        indices=np.arange(batch_size),
        labels=torch.randint(0, 4, (batch_size,), generator=generator),
        crops=torch.randint(0, 256, (batch_size, 16, 16, 3), dtype=torch.uint8, generator=generator),
        offsets=torch.zeros(batch_size, 2, dtype=torch.int64),
        flips=torch.zeros(batch_size, dtype=torch.bool),
        color_shift=torch.randn(batch_size, 3, generator=generator) * 10,
        divisor=1.1,
    )


def masks(batch_size=12):
    return draw_dropout_masks({"drop7": (32, 0.5)}, seed=0, step=0, batch_size=batch_size, device=CPU)


def step(model, preprocessing, *, micro_batch_size=12, label_smoothing=0.0, batch=None, dtype=torch.float32, **config):
    config = OptimizerConfig(**{"lr": 1e-3, **config})
    batch = batch or make_batch()
    model.train()
    return train_step(
        model,
        build_optimizer(model, config),
        batch,
        preprocessing=preprocessing,
        dropout_masks=masks(len(batch.labels)),
        micro_batch_size=micro_batch_size,
        label_smoothing=label_smoothing,
        device=CPU,
        dtype=dtype,
    )


def test_a_step_is_minus_lr_times_the_gradient_of_the_mean_loss(tiny_model, tiny_preprocessing):
    reference = copy.deepcopy(tiny_model).train()
    batch = make_batch()
    images = tiny_preprocessing.normalize(batch.crops, batch.offsets, batch.flips, batch.color_shift, 1.1)
    logits = reference(images, masks())
    loss = F.cross_entropy(logits, batch.labels)  # the mean over the batch (paper.md P28)
    loss.backward()
    result = step(tiny_model, tiny_preprocessing, momentum=0.9, weight_decay=0, bias_lr_factor=1)
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert result.num_wrong.item() == (logits.argmax(1) != batch.labels).sum().item()
    for name, parameter in reference.named_parameters():
        expected = parameter.detach() - 1e-3 * parameter.grad
        assert torch.allclose(tiny_model.get_parameter(name), expected, rtol=1e-5, atol=1e-8), name


@pytest.mark.parametrize("micro_batch_size", [1, 5, 6])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_accumulated_micro_batches_are_one_batch(tiny_model, tiny_preprocessing, micro_batch_size, label_smoothing):
    whole = copy.deepcopy(tiny_model)
    expected = step(whole, tiny_preprocessing, label_smoothing=label_smoothing)
    result = step(tiny_model, tiny_preprocessing, label_smoothing=label_smoothing, micro_batch_size=micro_batch_size)
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert result.num_wrong == expected.num_wrong
    for name, parameter in whole.named_parameters():
        assert torch.allclose(tiny_model.get_parameter(name), parameter, rtol=1e-4, atol=1e-7), name


def test_label_smoothing_is_torchs(tiny_model, tiny_preprocessing):
    batch = make_batch()
    images = tiny_preprocessing.normalize(batch.crops, batch.offsets, batch.flips, batch.color_shift, 1.1)
    logits = copy.deepcopy(tiny_model).train()(images, masks())
    expected = F.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    assert step(tiny_model, tiny_preprocessing, label_smoothing=0.1).loss.item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_in_bfloat16_the_weights_stay_float32(tiny_model, tiny_preprocessing):
    exact = step(copy.deepcopy(tiny_model), tiny_preprocessing).loss.item()
    rounded = step(tiny_model, tiny_preprocessing, dtype=torch.bfloat16).loss.item()
    assert {parameter.dtype for parameter in tiny_model.parameters()} == {torch.float32}
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.05)


def test_thirty_two_images_are_learnt_by_heart(tiny_model, tiny_preprocessing):
    batch = make_batch(32)
    optimizer = build_optimizer(tiny_model, OptimizerConfig(lr=2e-3, weight_decay=0))
    losses = []
    for number in range(100):
        result = train_step(
            tiny_model.train(),
            optimizer,
            batch,
            preprocessing=tiny_preprocessing,
            dropout_masks=draw_dropout_masks({"drop7": (32, 0.5)}, seed=0, step=number, batch_size=32, device=CPU),
            micro_batch_size=32,
            label_smoothing=0.0,
            device=CPU,
            dtype=torch.float32,
        )
        losses.append(result.loss.item())
    assert np.mean(losses[-5:]) < 0.2 * losses[0]


def test_the_average_moves_by_one_minus_decay(tiny_model):
    average = WeightAverage(tiny_model, decay=0.9)
    before = tiny_model.fc8.weight.detach().clone()
    with torch.no_grad():
        tiny_model.fc8.weight += 1
    average.update(tiny_model, num_updates=1000)
    assert torch.allclose(average.model.fc8.weight, before + 0.1, atol=1e-6)
    assert not average.model.training


def test_the_average_forgets_the_initial_weights_early(tiny_model):
    average = WeightAverage(tiny_model, decay=0.9999)
    with torch.no_grad():
        tiny_model.fc8.weight.fill_(1.0)
    for number in range(1, 30):
        average.update(tiny_model, number)
    assert (average.model.fc8.weight - 1).abs().max() < 0.01


def test_the_average_has_the_statistics_of_the_network_itself():
    """Whatever changes them: a training batch, or what the processes agree on."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    average = WeightAverage(model, decay=0.9)
    model(torch.randn(8, 3, 4, 4))
    assert average.model[0].running_mean.any()
    assert all(a is b for a, b in zip(average.model.buffers(), model.buffers(), strict=True))
    assert all(a is not b for a, b in zip(average.model.parameters(), model.parameters(), strict=True))

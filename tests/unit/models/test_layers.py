"""The layers that torch lacks: unshared convolution, the original dropout, in-bounds average pool."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet.models.architecture import (
    AveragePool,
    Dropout,
    Layer,
    LayerShapes,
    Local,
    MaxPool,
    pooled_side,
)
from alexnet.models.layers import build_layer


def _build(layer: Layer, inputs: tuple[int, ...], outputs: tuple[int, ...] | None = None) -> torch.nn.Module:
    return build_layer(LayerShapes(layer, inputs, outputs or inputs))


def test_original_dropout_keeps_units_as_they_are_and_halves_them_in_evaluation() -> None:
    layer = _build(Dropout("drop6", 0.5, "original"), (1000,))
    x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    trained = layer.train()(x)
    kept = trained == x
    assert torch.equal(trained, torch.where(kept, x, 0.0))
    assert 0.4 < kept.float().mean() < 0.6
    assert torch.equal(layer.eval()(x), 0.5 * x)


def test_inverted_dropout_scales_in_training_only() -> None:
    layer = _build(Dropout("drop6", 0.25, "inverted"), (1000,))
    x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    trained = layer.train()(x)
    kept = trained != 0
    torch.testing.assert_close(trained, torch.where(kept, x / 0.75, 0.0))
    assert 0.7 < kept.float().mean() < 0.8
    assert torch.equal(layer.eval()(x), x)


def test_original_dropout_of_another_rate_keeps_its_expectation() -> None:
    layer = _build(Dropout("drop6", 0.2, "original"), (1000,))
    x = torch.ones(50, 1000)
    assert layer.train()(x).mean().item() == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(layer.eval()(x), 0.8 * x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_given_masks_decide_in_training_and_are_ignored_in_evaluation(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    mask = torch.tensor([[1, 0, 0, 1]]).to(dtype)
    original = _build(Dropout("drop6", 0.5, "original"), (4,))
    assert original.train()(x, mask).tolist() == [[1, 0, 0, 4]]
    assert original.eval()(x, mask).tolist() == [[0.5, 1, 1.5, 2]]
    inverted = _build(Dropout("drop6", 0.5, "inverted"), (4,))
    assert inverted.train()(x, mask).tolist() == [[2, 0, 0, 8]]
    assert inverted.eval()(x, mask).tolist() == x.tolist()


def test_masks_of_maps_are_in_the_order_of_the_flattened_features() -> None:
    """torchvision's dropout sees pool5 before it is flattened; channels-last memory must not reorder the mask."""
    x = torch.arange(1.0, 13.0).reshape(1, 3, 2, 2).to(memory_format=torch.channels_last)
    mask = torch.arange(12).reshape(1, 12) % 3 == 0
    outputs = _build(Dropout("drop5", 0.5, "original"), (3, 2, 2))(x, mask)
    assert outputs.flatten().tolist() == [1, 0, 0, 4, 0, 0, 7, 0, 0, 10, 0, 0]


@pytest.mark.parametrize("scaling", ["original", "inverted"])
def test_rate_zero_has_no_effect(scaling: str) -> None:
    layer = _build(Dropout("drop6", 0.0, scaling), (4,))  # type: ignore[arg-type]
    x = torch.randn(2, 4)
    assert torch.equal(layer.train()(x), x)
    assert torch.equal(layer.eval()(x), x)


def test_dropout_passes_gradients_of_kept_units_only() -> None:
    x = torch.ones(1, 4, requires_grad=True)
    layer = _build(Dropout("drop6", 0.5, "original"), (4,))
    layer(x, torch.tensor([[True, False, True, False]])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 0, 1, 0]]


def _local(channels: int, side: int, kernel: int, padding: int) -> tuple[torch.nn.Module, np.ndarray, np.ndarray]:
    out_side = side + 2 * padding - kernel + 1
    layer = _build(Local("local3", 3, kernel, padding), (channels, side, side), (3, out_side, out_side))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    weight, bias = (parameter.detach().numpy() for parameter in layer.parameters())
    return layer, weight.reshape(out_side, out_side, 3, channels, kernel, kernel), bias.reshape(out_side, out_side, 3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0), (5, 2)])
def test_local_layer_has_its_own_weights_and_biases_everywhere(
    kernel: int, padding: int, memory_format: torch.memory_format
) -> None:
    layer, weight, bias = _local(2, 6, kernel, padding)
    x = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    outputs = layer(x.to(memory_format=memory_format)).detach().numpy()
    for row in range(outputs.shape[2]):
        for column in range(outputs.shape[3]):
            window = padded[:, :, row : row + kernel, column : column + kernel]
            expected = np.einsum("ncij,ocij->no", window, weight[row, column]) + bias[row, column]
            np.testing.assert_allclose(outputs[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_local_layer_with_equal_weights_everywhere_is_a_convolution() -> None:
    layer, _, _ = _local(2, 6, 3, 1)
    kernel = torch.randn(3, 2, 3, 3)
    with torch.no_grad():
        layer.weight.copy_(kernel.flatten(1))  # type: ignore[operator,union-attr]
        layer.bias.zero_()  # type: ignore[operator,union-attr]
    x = torch.randn(2, 2, 6, 6)
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, kernel, padding=1), rtol=1e-4, atol=1e-5)


def test_local_layer_in_bfloat16_keeps_float32_gradients() -> None:
    layer, _, _ = _local(2, 6, 3, 1)
    x = torch.randn(2, 2, 6, 6).bfloat16()
    outputs = layer(x)
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), layer(x.float()), rtol=0.05, atol=0.1)
    outputs.sum().backward()
    assert {parameter.grad.dtype for parameter in layer.parameters() if parameter.grad is not None} == {torch.float32}


def test_average_pool_divides_by_what_is_inside_the_map() -> None:
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    pooled = _build(AveragePool("pool2", 3, 2, ceil_mode=True), (1, 32, 32), (1, 16, 16))(x)
    assert pooled.shape == (1, 1, 16, 16)
    assert pooled[0, 0, 15, 15].item() == pytest.approx(x[0, 0, 30:, 30:].mean().item())
    assert pooled[0, 0, 0, 15].item() == pytest.approx(x[0, 0, :3, 30:].mean().item())
    assert pooled[0, 0, 0, 0].item() == pytest.approx(x[0, 0, :3, :3].mean().item())


def test_average_pool_of_2011_divides_every_window_by_nine() -> None:
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    pooled = _build(AveragePool("pool2", 3, 2, ceil_mode=True, divisor="window"), (1, 32, 32), (1, 16, 16))(x)
    assert pooled[0, 0, 15, 15].item() == pytest.approx(x[0, 0, 30:, 30:].sum().item() / 9)
    assert pooled[0, 0, 0, 15].item() == pytest.approx(x[0, 0, :3, 30:].sum().item() / 9)
    assert pooled[0, 0, 0, 0].item() == pytest.approx(x[0, 0, :3, :3].mean().item())


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooled_side_is_torchs(ceil_mode: bool) -> None:
    for size in (2, 3):
        for stride in (1, 2, 3):
            for side in range(size, 40):
                pool = _build(MaxPool("pool1", size, stride, ceil_mode), (1, side, side))
                expected = pool(torch.zeros(1, 1, side, side)).shape[-1]
                assert pooled_side(side, size, stride, ceil_mode) == expected, (side, size, stride)
    assert [pooled_side(side, 3, 2, True) for side in (55, 27, 13, 32, 24)] == [27, 13, 6, 16, 12]

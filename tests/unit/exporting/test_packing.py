"""Weights in fewer bytes: how far they are from what they were."""

import pytest
import torch
from export_stand_ins import small_checkpoint

from alexnet.errors import UserError
from alexnet.exporting.packing import HalfPrecision, Int8Rows, packed_model
from alexnet.training.checkpoint import build_model


def test_int8_is_half_a_scale_away_at_most_and_keeps_the_largest_and_zero():
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1e-6], [1e-3], [1.0], [100.0], [0.0]]
    )
    packing = Int8Rows()
    rows, scales = packing.right_inverse(weight)
    assert rows.dtype == torch.int8 and scales.shape == (5, 1)
    unpacked = packing(rows, scales)
    assert bool(((unpacked - weight).abs() <= scales * 0.5001).all())
    largest = weight.abs().argmax(dim=1)
    assert torch.allclose(unpacked[range(5), largest], weight[range(5), largest])
    assert bool((unpacked[4] == 0).all())


def test_every_output_has_a_scale_of_its_own():
    weight = torch.tensor([[1.0, 0.5], [1e-4, 2e-4]])
    rows, scales = Int8Rows().right_inverse(weight)
    assert rows.tolist() == [[127, 64], [64, 127]]
    assert torch.allclose(scales, torch.tensor([[1 / 127], [2e-4 / 127]]))


def test_half_precision_keeps_three_digits():
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(HalfPrecision()(*HalfPrecision().right_inverse(weight)), weight, rtol=5e-4, atol=1e-7)


def test_what_is_packed_is_where_the_bytes_are():
    checkpoint = small_checkpoint("cifar_11pct")

    def packed_layers(weights, dtype):
        parameters = packed_model(checkpoint, weights).named_parameters()
        return [name.split(".")[0] for name, parameter in parameters if parameter.dtype == dtype]

    assert packed_layers("int8", torch.int8) == ["local3", "local4", "fc10"]
    assert packed_layers("float16", torch.float16) == ["conv1", "conv2", "local3", "local4", "fc10"]
    assert packed_layers("float32", torch.float16) == packed_layers("float32", torch.int8) == []


def test_packed_weights_take_a_half_and_a_quarter_of_the_bytes():
    checkpoint = small_checkpoint("cifar_13pct")
    whole = sum(value.nbytes for value in checkpoint.model_state.values())
    rows = sum(checkpoint.model_state[f"{name}.weight"].nbytes for name in ("local3", "local4", "fc10"))
    share = {
        weights: sum(parameter.nbytes for parameter in packed_model(checkpoint, weights).parameters()) / whole
        for weights in ("float16", "int8")
    }
    assert 0.5 < share["float16"] < 0.51
    expected = 1 - 0.75 * rows / whole  # what is in convolutions stays as it is
    assert expected < share["int8"] < expected + 0.01


def test_the_checkpoint_keeps_its_weights():
    checkpoint = small_checkpoint("cifar_quick")
    before = {name: value.clone() for name, value in checkpoint.model_state.items()}
    packed = packed_model(checkpoint, "int8")
    assert all(torch.equal(before[name], value) for name, value in checkpoint.model_state.items())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 50
    exact, rounded = build_model(checkpoint)(images), packed(images)
    difference = (exact - rounded).abs().max() / exact.abs().max()
    assert 0 < difference < 0.03


def test_weights_beyond_float16_are_refused_by_name():
    checkpoint = small_checkpoint("cifar_quick")
    checkpoint.model_state["conv2.weight"][0, 0, 0, 0] = 1e5
    with pytest.raises(UserError, match="a weight of conv2 is beyond the range of float16"):
        packed_model(checkpoint, "float16")
    packed_model(checkpoint, "int8")

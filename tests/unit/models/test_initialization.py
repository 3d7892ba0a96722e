"""Initial weights: the published tables, and who draws what."""

from __future__ import annotations

import math

import pytest
import torch

from alexnet.config import INITIALIZATIONS
from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES, SCHEMES, AlexNet, build_network, initialize

BIASES_OF_1 = {"conv2", "conv4", "conv5", "fc6", "fc7"}


def _model(name: str, scheme: str, seed: int = 0) -> AlexNet:
    """Few classes and a small image: fc6 has a quarter of a million weights instead of 38 million."""
    size = None if name.startswith("cifar") else 67
    return build_network(name, 10, image_size=size, initialization=scheme, seed=seed)


@pytest.mark.parametrize("scheme", ["as_run", "paper", "caffe", "caffenet"])
def test_standard_deviations_and_biases(scheme: str) -> None:
    model = _model("as_run", scheme)
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        layer = model.get_submodule(name)
        expected_std = 0.01
        if scheme == "as_run" and name in ("conv3", "conv4", "conv5"):
            expected_std = 0.03
        if scheme in ("caffe", "caffenet") and name in ("fc6", "fc7"):
            expected_std = 0.005
        expected_bias = (0.1 if scheme == "caffe" else 1.0) if name in BIASES_OF_1 else 0.0
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, torch.Tensor)
        assert isinstance(bias, torch.Tensor)
        assert weight.std().item() == pytest.approx(expected_std, rel=0.02), name
        assert abs(weight.mean().item()) < 5 * expected_std / math.sqrt(weight.numel()), name
        assert weight.abs().max() > 3 * expected_std, "normal, not uniform"
        assert bias.unique().tolist() == pytest.approx([expected_bias]), name


def test_cifar_tables() -> None:
    expected = {
        "cifar_quick": {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc64": 0.1, "fc10": 0.1},
        "cifar_19pct": {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01},
        "cifar_18pct": {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01},
        "cifar_13pct": {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc10": 0.01},
        "cifar_11pct": {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc10": 0.01},
    }
    for name, table in expected.items():
        model = build_network(name, 10)
        parameters = dict(model.named_parameters())
        assert {key.removesuffix(".weight") for key in parameters if key.endswith(".weight")} == set(table)
        for layer, std in table.items():
            assert parameters[f"{layer}.weight"].std().item() == pytest.approx(std, rel=0.1), (name, layer)
            assert not parameters[f"{layer}.bias"].any(), (name, layer)


def test_torch_default_is_torchs_distribution() -> None:
    model = build_network("torchvision", 10, image_size=67)
    for layer in (model.conv1, model.conv2, model.fc6):
        weight, bias = layer.weight, layer.bias
        bound = 1 / math.sqrt(weight[0].numel())  # type: ignore[index,union-attr]
        assert isinstance(weight, torch.Tensor)
        assert isinstance(bias, torch.Tensor)
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert bias.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.25)


def test_as_run_is_he_scaled_where_the_text_is_three_times_too_small() -> None:
    model = _model("as_run", "as_run")
    he = {name: math.sqrt(2 / model.get_submodule(name).weight[0].numel()) for name in ("conv3", "conv4", "conv5")}  # type: ignore[index,union-attr]
    assert he["conv3"] == pytest.approx(0.0295, abs=5e-5)
    assert he["conv4"] == he["conv5"] == pytest.approx(0.0340, abs=5e-5)
    for name, value in he.items():
        ratio = model.get_submodule(name).weight.std().item() / value  # type: ignore[union-attr,operator]
        assert 0.85 < ratio < 1.05


def test_first_layer_responds_to_pixels_as_calculated() -> None:
    """Pixels of RMS 74.4 give conv1 outputs of RMS 0.01 * sqrt(363) * 74.4 = 14.2."""
    model = _model("as_run", "as_run")
    images = 74.4 * torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = model.activations(images, ["conv1"])["conv1"][:, :, :-1, :-1]
    assert outputs.square().mean().sqrt().item() == pytest.approx(14.2, rel=0.03)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, again, other = (_model("half", "as_run", seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith("weight"))
    # The generators of the layers are told apart by their names.
    assert not torch.equal(first["fc6.weight"].flatten()[:16], first["fc7.weight"].flatten()[:16])


def test_a_layer_begins_alike_in_every_variant_that_has_it() -> None:
    as_run, conv6 = _model("as_run", "as_run").state_dict(), _model("conv6", "as_run").state_dict()
    paper = _model("paper", "paper").state_dict()
    for key in as_run:
        assert torch.equal(as_run[key], conv6[key]), key
    assert torch.equal(as_run["conv1.weight"], paper["conv1.weight"])
    torch.testing.assert_close(as_run["conv3.weight"] / 3, paper["conv3.weight"])


def test_drawing_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _model("half", "as_run")
    assert torch.equal(torch.rand(3), expected)


def test_every_variant_has_its_own_scheme_and_the_recipes_schemes_exist() -> None:
    assert set(INITIALIZATIONS) <= set(SCHEMES)
    for record in ARCHITECTURES.values():
        assert record.initialization in SCHEMES
    assert ARCHITECTURES["as_run"].initialization == ARCHITECTURES["half"].initialization == "as_run"


def test_the_record_keeps_the_scheme_that_was_asked_for() -> None:
    assert _model("as_run", "paper").architecture.initialization == "paper"


def test_batch_norms_begin_as_the_identity() -> None:
    state = _model("bn", "caffe").state_dict()
    assert state["bn1.weight"].eq(1).all()
    assert state["bn1.bias"].eq(0).all()
    assert state["bn1.running_var"].eq(1).all()
    assert state["bn1.running_mean"].eq(0).all()
    assert "conv1.bias" not in state
    assert state["conv3.weight"].std().item() == pytest.approx(0.01, rel=0.02)


def test_unknown_schemes_and_schemes_of_other_nets_are_refused() -> None:
    with pytest.raises(UserError, match="no initialization 'xavier'; there are as_run, paper, caffe"):
        build_network("cifar_quick", 10, initialization="xavier")
    with pytest.raises(UserError, match="'as_run' says nothing about the layer 'fc64'; torch_default fits every model"):
        build_network("cifar_quick", 10, initialization="as_run")
    local = build_network("cifar_13pct", 10, initialization="torch_default").local3
    assert local.weight.abs().max().item() == pytest.approx(1 / math.sqrt(64 * 9), rel=0.01)  # type: ignore[union-attr,operator]


def test_initialize_overwrites_everything() -> None:
    model = build_network("cifar_quick", 10, seed=1)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    initialize(model, "cifar_quick", 1)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())

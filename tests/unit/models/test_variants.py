"""The golden numbers of every variant, and what the records say about each of them."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from alexnet.config import MODEL_NAMES
from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES, AlexNet, Architecture, Difference, compare, get_architecture, layer_table
from alexnet.models.architecture import AveragePool, Convolution, Dropout, MaxPool, ResponseNorm, SpatialNorm

FULLY_CONNECTED = {"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000}
TWO_TOWERS = {
    "conv1": 34_944,
    "conv2": 307_456,
    "conv3": 885_120,
    "conv4": 663_936,
    "conv5": 442_624,
    **FULLY_CONNECTED,
}
CIFAR_CONVOLUTIONS = {"conv1": 2_432, "conv2": 25_632, "conv3": 51_264}
PARAMETERS = {
    "as_run": TWO_TOWERS,
    "paper": TWO_TOWERS,
    "caffe": TWO_TOWERS,
    "caffenet": TWO_TOWERS,
    "one_tower": {**TWO_TOWERS, "conv2": 614_656, "conv4": 1_327_488, "conv5": 884_992},
    "half": {**TWO_TOWERS, "conv1": 17_472, "conv2": 153_728, "conv3": 221_376, "conv4": 331_968},
    "torchvision": {
        "conv1": 23_296,
        "conv2": 307_392,
        "conv3": 663_936,
        "conv4": 884_992,
        "conv5": 590_080,
        **FULLY_CONNECTED,
    },
    "conv6": {**TWO_TOWERS, "conv6": 590_080},
    # By hand: 320 kernels of 5 x 5 x 48, 384 of 3 x 3 x 160; 2 x 4096 units with 4608 inputs, 2 x 2048 with 4096.
    "no_communication": {
        **TWO_TOWERS,
        "conv2": 384_320,
        "conv3": 553_344,
        "fc6": 37_756_928,
    },
    # The biases of conv1 to conv4 (1120) give way to a factor and a shift each; conv5 has all three.
    "bn": {
        **{name: count - bias for (name, count), bias in zip(TWO_TOWERS.items(), (96, 256, 384, 384, 0), strict=False)},
        **FULLY_CONNECTED,
        **{f"bn{i + 1}": 2 * width for i, width in enumerate((96, 256, 384, 384, 256))},
    },
    "cifar_quick": {**CIFAR_CONVOLUTIONS, "fc64": 65_600, "fc10": 650},
    "cifar_19pct": {**CIFAR_CONVOLUTIONS, "fc10": 10_250},
    "cifar_18pct": {**CIFAR_CONVOLUTIONS, "fc10": 10_250},
    "cifar_13pct": {"conv1": 4_864, "conv2": 102_464, "local3": 664_704, "local4": 332_928, "fc10": 11_530},
    "cifar_11pct": {"conv1": 4_864, "conv2": 102_464, "local3": 1_329_408, "local4": 664_704, "fc10": 11_530},
}
TOTALS = {
    "as_run": 60_965_224,
    "paper": 60_965_224,
    "caffe": 60_965_224,
    "caffenet": 60_965_224,
    "one_tower": 62_378_344,
    "torchvision": 61_100_840,
    "conv6": 61_555_304,
    "half": 59_798_312,
    "no_communication": 60_714_408,
    "bn": 60_966_856,
    "cifar_quick": 145_578,
    "cifar_19pct": 89_578,
    "cifar_18pct": 89_578,
    "cifar_13pct": 1_116_490,
    "cifar_11pct": 2_112_970,
}


def _num_classes(name: str) -> int:
    return 10 if name.startswith("cifar") else 1000


def test_every_name_of_the_configuration_has_a_record() -> None:
    assert tuple(sorted(ARCHITECTURES)) == tuple(sorted(MODEL_NAMES)) == tuple(sorted(TOTALS))
    assert all(get_architecture(name).name == name for name in MODEL_NAMES)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no model 'as-run'; did you mean 'as_run'\? the models are as_run, paper"):
        get_architecture("as-run")


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_parameter_counts(name: str) -> None:
    rows = layer_table(ARCHITECTURES[name], _num_classes(name))
    assert {row.name: row.parameters for row in rows if row.parameters} == PARAMETERS[name]
    assert sum(row.parameters for row in rows) == TOTALS[name]
    with torch.device("meta"):
        model = AlexNet(ARCHITECTURES[name], _num_classes(name))
    counts = {layer: sum(p.numel() for p in module.parameters()) for layer, module in model.named_children()}
    assert {layer: count for layer, count in counts.items() if count} == PARAMETERS[name]


@pytest.mark.parametrize("name", ["as_run", "paper", "caffe", "caffenet", "one_tower", "bn", "conv6"])
def test_shapes(name: str) -> None:
    shapes = {row.name: row.output_shape for row in layer_table(ARCHITECTURES[name])}
    expected = {
        "conv1": (96, 55, 55),
        "pool1": (96, 27, 27),
        "conv2": (256, 27, 27),
        "pool2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (1000,),
    }
    assert {layer: shapes[layer] for layer in expected} == expected


def test_shapes_of_the_cifar_nets() -> None:
    for name, sides in {"cifar_quick": (16, 8, 4), "cifar_18pct": (16, 8, 4), "cifar_13pct": (12, 6)}.items():
        rows = layer_table(ARCHITECTURES[name], 10)
        assert tuple(row.output_shape[1] for row in rows if row.kind.endswith("Pool")) == sides
    assert {row.name: row.output_shape for row in layer_table(ARCHITECTURES["cifar_11pct"])}["local3"] == (64, 6, 6)


def test_multiply_adds() -> None:
    for name in ("as_run", "paper"):
        macs = {row.name: row.macs for row in layer_table(ARCHITECTURES[name]) if row.macs}
        assert list(macs.values()) == [
            105_415_200,
            223_948_800,
            149_520_384,
            112_140_288,
            74_760_192,
            37_748_736,
            16_777_216,
            4_096_000,
        ]
        assert sum(macs.values()) == 724_406_816
    assert sum(row.macs for row in layer_table(ARCHITECTURES["torchvision"])) == 714_188_480


def test_neurons_add_up_to_the_papers_650_000() -> None:
    rows = layer_table(ARCHITECTURES["paper"])
    assert sum(math.prod(row.output_shape) for row in rows if row.parameters) == 659_272


def _order(name: str) -> list[str]:
    return [layer.name for layer in ARCHITECTURES[name].layers]


def _names(text: str) -> list[str]:
    return text.split()


def test_order_of_the_first_two_blocks() -> None:
    assert _order("as_run")[:9] == _names("conv1 norm1 pool1 relu1 conv2 relu2 norm2 cnorm2 pool2")
    assert _order("paper")[:8] == _names("conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2")
    assert _order("caffe")[:8] == _names("conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2")
    assert _order("caffenet")[:8] == _names("conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2")
    assert _order("torchvision")[:6] == _names("conv1 relu1 pool1 conv2 relu2 pool2")
    assert _order("bn")[:8] == _names("conv1 bn1 relu1 pool1 conv2 bn2 relu2 pool2")
    for name in ("half", "one_tower", "no_communication"):
        assert _order(name) == _order("as_run")


def test_order_of_the_last_layers() -> None:
    for name in ("as_run", "paper", "caffe", "caffenet", "bn", "half", "one_tower", "no_communication"):
        assert _order(name)[-9:] == _names("relu5 pool5 fc6 relu6 drop6 fc7 relu7 drop7 fc8")
    assert _order("conv6")[-10:-6] == _names("pool5 conv6 relu_conv6 fc6")
    assert _order("torchvision")[-9:] == _names("pool5 avgpool drop5 fc6 relu6 drop6 fc7 relu7 fc8")


def test_order_of_the_cifar_nets() -> None:
    front = "conv1 pool1 relu1 conv2 relu2 pool2 conv3 relu3 pool3"
    assert _order("cifar_quick") == _names(f"{front} fc64 relu64 fc10")
    assert _order("cifar_19pct") == _names(f"{front} fc10")
    assert _order("cifar_18pct") == _names("conv1 pool1 relu1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 pool3 fc10")
    local = "local3 relu3 local4 relu4 fc10"
    assert _order("cifar_13pct") == _names(f"conv1 relu1 pool1 conv2 relu2 pool2 {local}")
    assert _order("cifar_11pct") == _names(f"conv1 relu1 pool1 norm1 conv2 relu2 norm2 pool2 {local}")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("as_run", (5, 1e-4, 0.75, 2.0, "mean", 2)),
        ("paper", (5, 1e-4, 0.75, 2.0, "sum", 2)),
        ("conv6", (5, 1e-4, 0.75, 2.0, "mean", 2)),
        ("no_communication", (5, 1e-4, 0.75, 2.0, "mean", 2)),
        ("one_tower", (5, 1e-4, 0.75, 2.0, "mean", 1)),
        ("half", (5, 1e-4, 0.75, 2.0, "mean", 1)),
        ("caffe", (5, 1e-4, 0.75, 1.0, "mean", 1)),
        ("caffenet", (5, 1e-4, 0.75, 1.0, "mean", 1)),
        ("cifar_11pct", (9, 1e-3, 0.75, 1.0, "mean", 1)),
    ],
)
def test_settings_of_the_norms_across_maps(name: str, settings: tuple[object, ...]) -> None:
    norms = [layer for layer in ARCHITECTURES[name].layers if isinstance(layer, ResponseNorm)]
    assert [norm.name for norm in norms] == ["norm1", "norm2"]
    for norm in norms:
        assert tuple(getattr(norm, field.name) for field in fields(norm)[1:]) == settings


def test_settings_of_the_norms_within_maps() -> None:
    found = {
        name: [layer for layer in record.layers if isinstance(layer, SpatialNorm)]
        for name, record in ARCHITECTURES.items()
    }
    as_145 = {"as_run", "conv6", "half", "one_tower", "no_communication"}
    for name in as_145:
        assert found[name] == [SpatialNorm("cnorm2", 5, 1e-3, 0.75, 1.0, "mean")]
    assert found["cifar_18pct"] == [SpatialNorm(name, 3, 5e-5, 0.75, 1.0, "mean") for name in ("norm1", "norm2")]
    assert {name for name, norms in found.items() if norms} == as_145 | {"cifar_18pct"}


def test_groups() -> None:
    for name, record in ARCHITECTURES.items():
        groups = {layer.name: layer.groups for layer in record.layers if isinstance(layer, Convolution)}
        towers = (
            {"conv2", "conv4", "conv5"} if name in ("as_run", "paper", "caffe", "caffenet", "conv6", "bn") else set()
        )
        if name == "no_communication":
            towers = {"conv2", "conv3", "conv4", "conv5"}
        assert {layer for layer, number in groups.items() if number == 2} == towers
        assert set(groups.values()) <= {1, 2}


def test_dropout() -> None:
    for name, record in ARCHITECTURES.items():
        layers = [layer for layer in record.layers if isinstance(layer, Dropout)]
        expected = {"torchvision": ["drop5", "drop6"]}.get(name, [] if "cifar" in name else ["drop6", "drop7"])
        assert [layer.name for layer in layers] == expected
        scaling = "inverted" if name in ("caffe", "caffenet", "torchvision", "bn") else "original"
        assert {(layer.rate, layer.scaling) for layer in layers} <= {(0.5, scaling)}


def test_pools() -> None:
    for name, record in ARCHITECTURES.items():
        pools = [layer for layer in record.layers if isinstance(layer, MaxPool | AveragePool)]
        assert {(pool.size, pool.stride) for pool in pools} == {(3, 2)}
        # The source and Caffe round up, torch down.
        assert {pool.ceil_mode for pool in pools} == {name != "torchvision"}
    kinds = [type(layer) for layer in ARCHITECTURES["cifar_quick"].layers if layer.name.startswith("pool")]
    assert kinds == [MaxPool, AveragePool, AveragePool]
    # paper.md, section 7 item 10: the code of 2011 divided by 9 at the edge too.
    averages = [layer for record in ARCHITECTURES.values() for layer in record.layers if isinstance(layer, AveragePool)]
    assert len(averages) == 6 and {pool.divisor for pool in averages} == {"window"}


def test_inputs() -> None:
    for name, record in ARCHITECTURES.items():
        expected = 32 if name in ("cifar_quick", "cifar_19pct", "cifar_18pct") else 24 if "cifar" in name else 224
        assert record.image_size == (227 if name in ("caffe", "caffenet", "bn") else expected)
        assert record.channel_order == ("bgr" if name in ("caffe", "caffenet", "bn") else "rgb")
        assert record.input_scale == ("unit" if name == "torchvision" else "pixels")
        padded = name in ("as_run", "paper", "one_tower", "half", "conv6", "no_communication")
        assert record.pad_right_bottom == (3 if padded else 0)


def test_as_run_and_paper_differ_in_what_the_paper_does_not_say() -> None:
    """The differences of architecture among the nine: alpha, order of conv1, spatial norm, initial weights."""
    assert compare(ARCHITECTURES["as_run"], ARCHITECTURES["paper"]) == [
        Difference("norm1", "alpha_convention", "mean", "sum"),
        Difference("relu1", "position", "after pool1", "after conv1"),
        Difference("norm2", "alpha_convention", "mean", "sum"),
        Difference("cnorm2", "layer", "SpatialNorm", None),
        Difference("conv3", "initial_std", 0.03, 0.01),
        Difference("conv4", "initial_std", 0.03, 0.01),
        Difference("conv5", "initial_std", 0.03, 0.01),
    ]


def test_comparison_of_a_variant_with_itself_is_empty_and_reversed_is_mirrored() -> None:
    for name, record in ARCHITECTURES.items():
        assert compare(record, record) == []
        forth, back = compare(ARCHITECTURES["as_run"], record), compare(record, ARCHITECTURES["as_run"])
        assert bool(forth) == bool(back) == (name != "as_run")
    caffe, caffenet = ARCHITECTURES["caffe"], ARCHITECTURES["caffenet"]
    mirrored = {(d.layer, d.field, d.b, d.a) for d in compare(caffenet, caffe) if d.field != "position"}
    assert mirrored == {(d.layer, d.field, d.a, d.b) for d in compare(caffe, caffenet) if d.field != "position"}


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_record_survives_the_trip_through_plain_types(name: str) -> None:
    record = ARCHITECTURES[name]
    plain = record.to_dict()
    assert _is_plain(plain)
    assert Architecture.from_dict(plain) == record
    assert plain["layers"][0]["kind"] == "Convolution"


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (str, int, float, bool)


def test_an_unknown_kind_of_layer_is_refused() -> None:
    plain = ARCHITECTURES["as_run"].to_dict()
    plain["layers"][3]["kind"] = "Maxout"
    with pytest.raises(ValueError, match="Maxout"):
        Architecture.from_dict(plain)

"""What a recipe can replace or leave out in a network (paper 3.1, 3.3, 3.4, 4.2, 7)."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

from alexnet.config import MODEL_NAMES, ModelConfig
from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES, AlexNet, Architecture, build_network, compare, layer_table
from alexnet.models.architecture import Convolution, Linear, ReLU, SiLU, Tanh, layer_shapes
from alexnet.models.changes import ACTIVATIONS, change_architecture

AS_RUN = ARCHITECTURES["as_run"]


def _names(architecture: Architecture) -> list[str]:
    return [layer.name for layer in architecture.layers]


def _sides(architecture: Architecture) -> dict[str, int]:
    return {row.name: row.output_shape[1] for row in layer_table(architecture) if len(row.output_shape) == 3}


def test_nothing_to_change_changes_nothing() -> None:
    assert change_architecture(AS_RUN) is AS_RUN
    assert change_architecture(AS_RUN, activation="relu", dropout=0.5) == AS_RUN


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_activation_is_replaced_and_keeps_its_place(name: str) -> None:
    own = ARCHITECTURES[name]
    for activation, kind in (("tanh", Tanh), ("silu", SiLU)):
        changed = change_architecture(own, activation=activation)
        assert _names(changed) == _names(own)
        assert [type(layer) for layer in changed.layers] == [
            kind if isinstance(layer, ReLU) else type(layer) for layer in own.layers
        ]
        back = change_architecture(changed, activation="relu")
        assert back.layers == own.layers


def test_the_choices_of_the_recipe_are_those_of_the_network() -> None:
    properties = ModelConfig.model_json_schema()["properties"]
    assert properties["activation"]["anyOf"][0]["enum"] == list(ACTIVATIONS)


@pytest.mark.parametrize(("activation", "function"), [("tanh", torch.tanh), ("silu", F.silu), ("relu", F.relu)])
def test_the_activation_is_the_function_of_its_name(activation: str, function: object) -> None:
    model = build_network("half", 5, image_size=67, activation=activation, seed=1).eval()  # type: ignore[arg-type]
    images = torch.randint(0, 256, (2, 3, 67, 67), generator=torch.Generator().manual_seed(0)) - 120.0
    with torch.no_grad():
        outputs = model.activations(images)
        assert torch.equal(outputs["relu3"], function(outputs["conv3"]))  # type: ignore[operator]
        torch.testing.assert_close(model(images), outputs["fc8"], rtol=1e-4, atol=1e-4)


def test_only_relu_runs_inside_the_fused_operator() -> None:
    changed = change_architecture(AS_RUN, activation="tanh")
    with torch.device("meta"):
        names = [stage.names for stage in AlexNet(changed).stages()]
    assert ("norm1", "pool1") in names
    assert ("relu1",) in names
    assert ("norm2", "cnorm2", "pool2") in names


def test_max_pooling_commutes_with_tanh_but_not_with_silu() -> None:
    maps = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0)) - 2
    for function, commutes in ((torch.tanh, True), (F.relu, True), (F.silu, False)):
        assert torch.equal(function(F.max_pool2d(maps, 3, 2)), F.max_pool2d(function(maps), 3, 2)) is commutes


# ---------------------------------------------------------------- pools


def test_pools_that_do_not_overlap_have_the_sizes_of_config_147() -> None:
    changed = change_architecture(AS_RUN, pooling="non_overlapping")
    sides = _sides(changed)
    order = ("conv1", "pool1", "conv2", "pool2", "conv4", "conv5", "pool5")
    assert [sides[name] for name in order] == [55, 28, 26, 13, 13, 11, 6]
    assert {(d.layer, d.field, d.a, d.b) for d in compare(AS_RUN, changed)} == {
        *((f"pool{i}", "size", 3, 2) for i in (1, 2, 5)),
        ("conv2", "padding", 2, 1),
        ("conv5", "padding", 1, 0),
    }
    rows = layer_table(changed)
    assert sum(row.parameters for row in rows) == 60_965_224, "an ablation of the pools, not of the weights"


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_last_maps_keep_their_size_without_overlap(name: str) -> None:
    changed = change_architecture(ARCHITECTURES[name], pooling="non_overlapping")
    own, others = layer_table(ARCHITECTURES[name]), layer_table(changed)
    assert sum(row.parameters for row in own) == sum(row.parameters for row in others)
    pools = [layer for layer in changed.layers if layer.name.startswith("pool")]
    assert {(pool.size, pool.stride) for pool in pools} == {(2, 2)}  # type: ignore[union-attr]
    if name.startswith("cifar") or name == "torchvision":
        assert {d.field for d in compare(ARCHITECTURES[name], changed)} == {"size"}, "the pools alone"


def _last_side(architecture: Architecture, image_size: int) -> int:
    """Side of the maps that the first fully-connected layer gets."""
    return next(row.inputs[1] for row in layer_shapes(architecture, 5, image_size) if isinstance(row.layer, Linear))


def _refused(image_size: int, name: str = "as_run") -> list[int] | None:
    """The sizes that the message offers, where pools without overlap are refused at this one."""
    try:
        change_architecture(ARCHITECTURES[name], pooling="non_overlapping", image_size=image_size)
    except UserError as error:
        return [int(number) for number in re.findall(r"\d+", str(error).rpartition("image_size")[2])]
    return None


def test_at_every_image_size_the_last_maps_keep_their_size_or_the_pools_are_refused() -> None:
    at_224 = change_architecture(AS_RUN, pooling="non_overlapping")
    refused = {size: offered for size in range(63, 301) if (offered := _refused(size)) is not None}
    working = [size for size in range(63, 301) if size not in refused]
    assert len(working) == 89 and {67, 88, 128, 224, 227} <= set(working)
    for size in working:
        changed = change_architecture(AS_RUN, pooling="non_overlapping", image_size=size)
        assert changed == at_224, "the paddings of config 147, whatever the images"
        assert _last_side(changed, size) == _last_side(AS_RUN, size)
    for size, offered in refused.items():
        assert _last_side(at_224, size) != _last_side(AS_RUN, size)
        below = [other for other in working if other < size]
        above = [other for other in working if other > size]
        assert offered == [*below[-1:], *(above[:1] or [312])]


@pytest.mark.parametrize("size", [112, 115, 150, 176])
def test_a_network_is_not_built_where_its_last_maps_would_change(size: int) -> None:
    with pytest.raises(UserError):
        build_network("half", 5, image_size=size, pooling="non_overlapping")
    assert build_network("half", 5, image_size=size).fc6.in_features in (256 * 9, 256 * 16, 256 * 25)


def test_images_of_the_cifar_nets_have_their_own_sizes() -> None:
    assert _refused(32, "cifar_19pct") is None and _refused(40, "cifar_19pct") is None
    assert _refused(36, "cifar_19pct") == [32, 40]
    assert _refused(24, "cifar_11pct") is None and _refused(25, "cifar_11pct") == [24, 28]
    assert _refused(223, "torchvision") is None and _refused(227, "torchvision") == [226, 255]


def test_images_that_are_too_small_are_refused_as_they_are_with_overlap() -> None:
    with pytest.raises(UserError, match="smallest size that fits is 36"):
        build_network("as_run", 5, image_size=35, pooling="non_overlapping")
    assert _refused(36) == [56], "with 2 x 2 windows and less padding nothing would be left of the maps"


# ---------------------------------------------------------------- layers left out


def test_without_all_norms_is_config_148() -> None:
    changed = change_architecture(AS_RUN, without=("norm1", "norm2", "cnorm2"))
    assert _names(changed)[:6] == ["conv1", "pool1", "relu1", "conv2", "relu2", "pool2"]
    assert [d.layer for d in compare(AS_RUN, changed)] == ["norm1", "norm2", "cnorm2"]


@pytest.mark.parametrize(
    ("model", "without", "gone"),
    [
        ("as_run", ["conv3"], {"conv3", "relu3"}),
        ("as_run", ["conv2"], {"conv2", "relu2"}),
        ("as_run", ["fc7"], {"fc7", "relu7", "drop7"}),
        ("bn", ["conv4"], {"conv4", "bn4", "relu4"}),
        ("torchvision", ["conv5"], {"conv5", "relu5"}),
        ("conv6", ["conv6"], {"conv6", "relu_conv6"}),
        ("half", ["conv1", "norm1"], {"conv1", "relu1", "norm1"}),
        ("cifar_11pct", ["norm1", "norm2"], {"norm1", "norm2"}),
        ("cifar_13pct", ["local3"], {"local3", "relu3"}),
        ("as_run", ["relu4"], {"relu4"}),
    ],
)
def test_a_layer_of_weights_goes_with_what_belongs_to_it(model: str, without: list[str], gone: set[str]) -> None:
    own = ARCHITECTURES[model]
    changed = change_architecture(own, without=without)
    assert set(_names(own)) - set(_names(changed)) == gone
    with torch.device("meta"):
        network = AlexNet(changed, 5)
        assert network(torch.empty(1, 3, network.image_size, network.image_size)).shape == (1, 5)
    network.conv1_form = "space_to_depth"


def test_conv6_left_out_is_the_network_without_it() -> None:
    assert change_architecture(ARCHITECTURES["conv6"], without=["conv6"]).layers == AS_RUN.layers


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (
            ["norm9"],
            r"without = 'norm9': as_run has no such layer; did you mean 'norm[12]'\? Its layers are conv1, norm1",
        ),
        (["fc8"], "without = 'fc8': its outputs are the classes, so it has to stay"),
        (["conv1"], "norm1 works in 2 groups, which the 3 maps it would be given do not divide into; leave out norm1"),
        (["conv1", "norm1"], "conv2 works in 2 groups, which the 3 maps"),
    ],
)
def test_what_cannot_be_left_out_is_refused_with_a_remedy(without: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_network("as_run", 5, image_size=67, without=without)
    assert "Models for" not in str(caught.value), "another size would not help"


def test_other_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="activation = 'gelu'; it is one of relu, tanh, silu"):
        build_network("half", 5, activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="pooling = 'none'; it is overlapping or non_overlapping"):
        build_network("half", 5, pooling="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("without", ["conv5", "pool5"])
def test_a_network_without_a_layer_has_to_keep_its_last_maps_too(without: str) -> None:
    with pytest.raises(UserError):
        change_architecture(AS_RUN, pooling="non_overlapping", without=[without])
    with pytest.raises(UserError):
        change_architecture(change_architecture(AS_RUN, without=[without]), pooling="non_overlapping")


def test_without_conv2_conv5_alone_loses_its_padding() -> None:
    own = change_architecture(AS_RUN, without=["conv2"])
    changed = change_architecture(AS_RUN, without=["conv2"], pooling="non_overlapping")
    assert _last_side(own, 224) == _last_side(changed, 224) == 6
    assert {d.layer for d in compare(own, changed) if d.field == "padding"} == {"conv5"}


# ---------------------------------------------------------------- what is left of it in the record


def test_the_record_says_what_was_changed_and_survives_a_checkpoint() -> None:
    changed = change_architecture(
        AS_RUN, activation="tanh", pooling="non_overlapping", without=["norm1", "conv3"], dropout=0.0
    )
    assert changed.name == "as_run"
    assert changed.summary.endswith(
        "Changed: activation tanh; dropout 0; without norm1, conv3; pools that do not overlap."
    )
    assert Architecture.from_dict(changed.to_dict()) == changed
    found = {(d.layer, d.field, d.b) for d in compare(AS_RUN, changed)}
    changes = {("relu1", "layer", "Tanh"), ("pool1", "size", 2), ("drop6", "rate", 0.0), ("norm1", "layer", None)}
    assert found > changes | {("conv3", "layer", None), ("conv2", "padding", 1)}


def test_records_of_before_linear_layers_had_groups_can_be_read() -> None:
    plain = AS_RUN.to_dict()
    for layer in plain["layers"]:
        if layer["kind"] == "Linear":
            del layer["groups"]
    assert Architecture.from_dict(plain) == AS_RUN


def test_layers_that_stay_begin_as_they_did() -> None:
    own = build_network("half", 5, image_size=67, seed=3).state_dict()
    changed = build_network(
        "half", 5, image_size=67, seed=3, activation="tanh", without=["norm1", "conv4"]
    ).state_dict()
    assert set(own) - set(changed) == {"conv4.weight", "conv4.bias"}
    for name in set(changed) - {"conv5.weight"}:
        assert torch.equal(own[name], changed[name]), name


def test_left_out_convolutions_leave_their_groups_working() -> None:
    """Without conv3 the towers do not meet before fc6; without conv5, fc6 sees 384 maps."""
    rows = {row.name: row for row in layer_table(change_architecture(AS_RUN, without=["conv3"]))}
    assert rows["conv4"].parameters == 384 * (128 * 9 + 1)
    rows = {row.name: row for row in layer_table(change_architecture(AS_RUN, without=["conv5"]))}
    assert rows["fc6"].parameters == 4096 * (384 * 36 + 1)
    convolutions = [layer for layer in AS_RUN.layers if isinstance(layer, Convolution)]
    for layer in convolutions[1:]:
        create_on_meta = change_architecture(AS_RUN, without=[layer.name])
        with torch.device("meta"):
            assert AlexNet(create_on_meta, 5)(torch.empty(1, 3, 224, 224)).shape == (1, 5)

"""A record of a network that cannot be is refused, whoever wrote it."""

import math
from dataclasses import replace

import pytest

from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES, AlexNet
from alexnet.models.architecture import Architecture, check_architecture, layer_shapes

WRONG = {
    "conv1": [("channels", 0), ("channels", True), ("kernel", -1), ("kernel", 2.0), ("stride", -2), ("padding", -1),
              ("padding", 99), ("groups", 5), ("bias", 1), ("channels", "96"), ("channels", None)],
    "norm1": [("size", 0), ("size", -1), ("towers", -1), ("towers", -8), ("towers", 0), ("alpha", math.nan),
              ("beta", math.inf), ("k", 0.0), ("k", -1), ("alpha_convention", "max"), ("alpha_convention", 1)],
    "cnorm2": [("size", -1), ("size", 4)],
    "pool1": [("size", 0), ("size", -1), ("size", -3), ("stride", 0), ("stride", -2), ("ceil_mode", 1), ("size", 3.5)],
    "fc6": [("features", 0), ("features", -5), ("features", 2**40)],
    "drop6": [("rate", 1.0), ("rate", -0.1), ("rate", math.nan), ("scaling", "")],
}  # fmt: skip
NAMES = [
    "",
    "a.b",
    "forward",
    "training",
    "state_dict",
    "fc8",
    "_x",
    "conv 1",
    "1",
    "class",
    "\u00e4",
    "a" * 200,
    3,
    None,
]


def described(**changes):
    """as_run as a file describes it, with some layers' fields replaced."""
    record = ARCHITECTURES["as_run"].to_dict()
    assert set(changes) <= {layer["name"] for layer in record["layers"]}
    for layer in record["layers"]:
        layer.update(changes.get(layer["name"], {}))
    return record


def test_every_variant_is_possible_and_the_same_again():
    for architecture in ARCHITECTURES.values():
        assert Architecture.from_dict(architecture.to_dict()) == architecture


@pytest.mark.parametrize("layer", WRONG)
def test_a_field_that_cannot_be_is_refused(layer):
    for field, value in WRONG[layer]:
        with pytest.raises(ValueError, match=rf"{layer}.*{field}"):
            Architecture.from_dict(described(**{layer: {field: value}}))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_a_layer_cannot_have_is_refused(name):
    with pytest.raises(ValueError):
        Architecture.from_dict(described(pool1={"name": name}))


@pytest.mark.parametrize("name", ["architecture", "image_size", "num_classes", "stages", "layers"])
def test_a_layer_cannot_take_the_place_of_what_a_network_has(name):
    record = Architecture.from_dict(described(pool1={"name": name}))
    with pytest.raises(UserError):
        AlexNet(record)


def test_the_record_itself_is_checked():
    record = ARCHITECTURES["as_run"].to_dict()
    for changes in ({"image_size": 0}, {"image_size": True}, {"pad_right_bottom": -1}, {"input_scale": "big"},
                    {"name": 3}, {"layers": []}, {"layers": None}, {"layers": [3]}, {"layers": [{"kind": []}]},
                    {"layers": [{"kind": "Exchange", "name": "x"}]}, {"more": 1}, {"layers": [{"kind": "ReLU"}]},
                    {"layers": [{"kind": "ReLU", "name": f"r{i}"} for i in range(2000)]}):  # fmt: skip
        with pytest.raises(ValueError):
            Architecture.from_dict({**record, **changes})
    with pytest.raises(ValueError):
        Architecture.from_dict([])  # type: ignore[arg-type]


def test_one_made_by_hand_is_checked_too():
    record = ARCHITECTURES["as_run"]
    layers = tuple(replace(layer, size=-1) if layer.name == "pool1" else layer for layer in record.layers)
    with pytest.raises(ValueError):
        check_architecture(replace(record, layers=layers))
    with pytest.raises(UserError):
        AlexNet(replace(record, layers=layers))


def test_a_network_that_no_machine_has_room_for_is_refused():
    record = Architecture.from_dict(described(fc6={"features": 2**23}, fc7={"features": 2**23}))
    with pytest.raises(UserError):
        layer_shapes(record, 1000, 224)

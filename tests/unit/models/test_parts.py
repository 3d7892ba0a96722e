"""Networks cut into parts, as records; that they compute the same is tested with processes (test_parallelism.py)."""

import pytest
import torch

from alexnet.errors import UserError
from alexnet.models import AlexNet, get_architecture
from alexnet.models.architecture import Exchange, ResponseNorm, layer_shapes
from alexnet.models.parts import own_rows, part_of


def shapes_of(part, num_classes, image_size):
    return {row.layer.name: row for row in layer_shapes(part.architecture, num_classes, image_size)}


def test_a_tower_is_what_one_gpu_held():
    """Paper 3.5 and Figure 2: 48, 128, 192, 192, 128 kernels and 2,048 units on each GPU."""
    part = part_of(get_architecture("as_run"), 1000, 224, "towers", 2, 1)
    rows = shapes_of(part, 1000, 224)
    outputs = [rows[name].outputs[0] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")]
    assert outputs == [48, 128, 192, 192, 128, 2048, 2048, 500]
    # They communicate in certain layers only: conv3, and the fully-connected ones.
    exchanges = [layer.name for layer in part.architecture.layers if isinstance(layer, Exchange)]
    assert exchanges == ["to_conv3", "to_fc6", "to_fc7", "to_fc8", "to_loss"]
    assert rows["conv3"].inputs == (256, 13, 13) and rows["conv4"].inputs == (192, 13, 13)
    assert all(layer.towers == 1 for layer in part.architecture.layers if isinstance(layer, ResponseNorm))


@pytest.mark.parametrize(("cut", "parts"), [("towers", 2), ("classifier", 2), ("classifier", 3)])
def test_the_parts_have_all_weights_of_the_whole_between_them(cut, parts):
    architecture = get_architecture("as_run")
    with torch.device("meta"):
        whole = {name: value.shape for name, value in AlexNet(architecture, 10).state_dict().items()}
        found = [part_of(architecture, 10, 224, cut, parts, rank) for rank in range(parts)]
        states = [AlexNet(part.architecture, 10).state_dict() for part in found]
    for name, shape in whole.items():
        own = [state[name].shape for state in states]
        if found[0].cuts(name):
            assert sum(each[0] for each in own) == shape[0] and {each[1:] for each in own} == {shape[1:]}, name
        else:
            assert set(own) == {shape}, name
    cut_names = {name.split(".")[0] for name in whole if found[0].cuts(name)}
    assert ("conv1" in cut_names) == (cut == "towers") and {"fc6", "fc7", "fc8"} <= cut_names


def test_shares_are_consecutive_and_whole():
    whole = torch.arange(10).unsqueeze(1)
    assert torch.equal(torch.cat([own_rows(whole, 4, rank) for rank in range(4)]), whole)
    assert [len(own_rows(whole, 4, rank)) for rank in range(4)] == [3, 3, 3, 1]
    number = torch.tensor(7)
    assert own_rows(number, 4, 2) is number


@pytest.mark.parametrize(
    ("variant", "cut", "parts", "message"),
    [
        ("one_tower", "towers", 2, "norm1 normalises over 1 tower"),
        ("as_run", "towers", 3, "norm1 normalises over 2 tower"),
        ("as_run", "towers", 5, "conv1 has 96 outputs, which cannot be shared out among 5"),
        ("cifar_11pct", "towers", 2, "cannot be cut"),
        ("no_communication", "classifier", 3, "fc6 has 2 groups"),
        ("as_run", "classifier", 8, "fc8 has 10 outputs, which cannot be shared out among 8"),
    ],
)
def test_what_cannot_be_cut_is_refused(variant, cut, parts, message):
    architecture = get_architecture(variant)
    with pytest.raises(UserError, match=message):
        part_of(architecture, 10, architecture.image_size, cut, parts, 0)

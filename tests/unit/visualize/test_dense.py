import pytest
import torch
from networks_to_see import IMAGE_SIZE, architecture, random_inputs, small_model
from torch.nn import functional as F

from alexnet.errors import UserError
from alexnet.models import build_network
from alexnet.models.architecture import AdaptiveAveragePool, Convolution, Dropout, Linear, MaxPool, ReLU
from alexnet.models.receptive_field import receptive_fields
from alexnet.visualize.dense import dense_logits, window_field

WITHOUT_PADDING = (
    Convolution("conv1", 6, kernel=3, stride=2),
    ReLU("relu1"),
    MaxPool("pool1", size=3, stride=2, ceil_mode=True),
    Convolution("conv2", 4, kernel=3),
    ReLU("relu2"),
    Linear("fc6", 8, groups=2),
    ReLU("relu6"),
    Dropout("drop6", rate=0.5, scaling="original"),
    Linear("fc7", None),
)


@pytest.mark.parametrize(
    ("name", "size"),
    [("as_run", 99), ("no_communication", 67), ("torchvision", 224), ("bn", 67), ("cifar_quick", None),
     ("cifar_18pct", None)],
)  # fmt: skip
def test_on_an_image_of_the_networks_own_size_it_is_the_classifier(name, size):
    model = build_network(name, 3, image_size=size).eval()
    inputs = 30 * random_inputs(2, model.image_size)
    with torch.no_grad():
        expected = model(inputs)
    found = dense_logits(model, inputs)
    assert found.shape == (2, 3, 1, 1)
    assert torch.allclose(found[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_without_paddings_every_place_is_what_the_classifier_says_of_the_window():
    model = small_model(layers=WITHOUT_PADDING, pad_right_bottom=0, image_size=31)
    field = window_field(model)
    assert field == (31, 4, 0)
    inputs = random_inputs(2, 31 + 4 * 3 + 2)[:, :, :, : 31 + 4 + 1]
    found = dense_logits(model, inputs)
    assert found.shape == (2, 4, 4, 2)
    for row in range(4):
        for column in range(2):
            window = inputs[:, :, 4 * row : 4 * row + 31, 4 * column : 4 * column + 31]
            with torch.no_grad():
                assert torch.allclose(found[:, :, row, column], model(window), atol=1e-5)


def test_with_paddings_units_that_see_no_edge_agree():
    """The maps of a shifted crop are those of the whole, where no unit on the way has seen a padding."""
    model = small_model()
    last = "pool2"
    field = receptive_fields(model.architecture, IMAGE_SIZE)[last]
    shift = 2 * field.stride
    whole = random_inputs(1, IMAGE_SIZE + shift)
    with torch.no_grad():
        maps = F.pad(whole, (0, 1, 0, 1))
        for name, layer in model.named_children():
            if name == "fc6":
                break
            maps = layer(maps)
        crop = model.activations(whole[:, :, shift:, shift:], [last])[last]
    size = IMAGE_SIZE + shift
    inside = [
        (row, column)
        for row in range(crop.shape[2])
        for column in range(crop.shape[3])
        if min(field.first + position * field.stride for position in (row, column)) >= 0
        and max(field.first + position * field.stride for position in (row, column)) + field.size <= IMAGE_SIZE
    ]
    assert inside, (field, crop.shape, size)
    for row, column in inside:
        assert torch.allclose(crop[..., row, column], maps[..., row + 2, column + 2], atol=1e-5)
    edge = crop[..., 0, 0], maps[..., 2, 2]
    assert not torch.allclose(*edge, atol=1e-5)  # there the crop sees zeros


def test_windows_that_reach_over_the_edge_are_left_out():
    model = small_model()
    stride = window_field(model).stride
    assert stride == 8
    for extra, count in ((0, 1), (7, 1), (8, 2), (17, 3)):
        assert dense_logits(model, random_inputs(1, IMAGE_SIZE + extra)).shape[2:] == (count, count)


def test_networks_and_images_without_a_dense_form_are_refused():
    with pytest.raises(UserError, match="local3 has weights of its own for every position"):
        dense_logits(build_network("cifar_13pct", 3), random_inputs(1, 40))
    with pytest.raises(UserError, match="small needs images of at least 35 pixels"):
        dense_logits(small_model(), random_inputs(1, 34))
    stretched = (*architecture().layers[:8], AdaptiveAveragePool("avgpool", size=6), Linear("fc6", None))
    with pytest.raises(UserError, match="avgpool stretches its maps at this image size"):
        dense_logits(small_model(layers=stretched), random_inputs())

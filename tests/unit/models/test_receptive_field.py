import pytest
import torch

from alexnet.models import build_network, get_architecture
from alexnet.models.architecture import ReLU
from alexnet.models.receptive_field import ReceptiveField, receptive_fields


@pytest.mark.parametrize(
    ("name", "layer", "field"),
    [
        ("as_run", "conv1", (11, 4, 0)),
        ("as_run", "pool1", (19, 8, 0)),
        ("as_run", "conv2", (51, 8, -16)),
        ("as_run", "pool2", (99, 16, -32)),  # with the spatial norm's 5 x 5
        ("caffe", "pool2", (67, 16, -16)),
        ("caffe", "conv5", (163, 16, -64)),
        ("caffe", "pool5", (195, 32, -64)),
        ("torchvision", "avgpool", (195, 32, -66)),
        ("caffe", "fc6", (227, 1, 0)),
        ("caffe", "fc8", (227, 1, 0)),
    ],
)
def test_the_known_fields(name, layer, field):
    architecture = get_architecture(name)
    assert receptive_fields(architecture, architecture.image_size)[layer] == field


@pytest.mark.parametrize("name", ["as_run", "cifar_18pct", "cifar_11pct"])
def test_a_unit_depends_on_its_field_and_on_nothing_else(name):
    """The gradient of a unit by the pixels: with positive weights no path cancels another."""
    architecture = get_architecture(name)
    size = 99 if name == "as_run" else architecture.image_size
    model = build_network(name, 2, image_size=size).eval()
    fields = receptive_fields(architecture, size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()
    # Without this the maximum of a pool would depend on one unit of its window; the mean has the same field.
    for layer in architecture.layers:
        if "Pool" in type(layer).__name__ and hasattr(layer, "stride"):
            pool = torch.nn.AvgPool2d(layer.size, layer.stride, ceil_mode=layer.ceil_mode)
            model.set_submodule(layer.name, pool)
    images = torch.rand(1, 3, size, size).add_(0.5).requires_grad_()
    maps = model.activations(images)
    for layer in architecture.layers:
        outputs = maps[layer.name]
        if outputs.ndim != 4 or isinstance(layer, ReLU):
            continue
        row, column = outputs.shape[2] // 2, outputs.shape[3] - 1
        (gradient,) = torch.autograd.grad(outputs[0, :, row, column].sum(), images, retain_graph=True)
        reached = (gradient[0] != 0).any(dim=0).nonzero()
        top, left, bottom, right = fields[layer.name].box(row, column, size)
        assert reached.min(dim=0).values.tolist() == [top, left], layer.name
        assert (reached.max(dim=0).values + 1).tolist() == [bottom, right], layer.name


def test_a_field_beyond_the_image_is_cut_off():
    field = ReceptiveField(size=11, stride=4, first=-6)
    assert field.box(0, 1, 20) == (0, 0, 5, 9)
    assert field.box(5, 3, 20) == (14, 6, 20, 17)
    assert field.center == -1

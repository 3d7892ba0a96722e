import numpy as np
import pytest
import torch
from networks_to_see import IMAGE_SIZE, random_inputs, small_model

from alexnet.errors import UserError
from alexnet.models import build_network, get_architecture
from alexnet.models.receptive_field import receptive_fields
from alexnet.visualize import grad_cam, last_maps, layer_activations, map_layers
from alexnet.visualize.placement import spread_over_pixels


def by_the_formula(model, inputs, class_index, layer, step=1e-6):
    """Equations 1 and 2 with the gradient as central differences in float64, unit by unit."""
    model = model.double()
    with torch.no_grad():
        maps = model.activations(inputs.double(), [layer])[layer]
        nudges = step * torch.eye(maps.numel(), dtype=torch.float64).reshape(-1, *maps.shape[1:])
        up, down = (model.logits_after(layer, maps + sign * nudges)[:, class_index] for sign in (1, -1))
        weights = ((up - down) / (2 * step)).reshape(maps.shape).mean(dim=(2, 3), keepdim=True)
        return (weights * maps).sum(dim=1)[0].clamp(min=0)


# Not relu2: in a window of zeros the largest is not defined, and the slopes to both sides differ.
@pytest.mark.parametrize("layer", ["conv2", "norm1", "pool2"])
def test_it_is_the_formula_laid_over_the_pixels(layer):
    inputs = random_inputs(seed=3)
    heat = grad_cam(small_model(), inputs, 2, layer)
    assert heat.shape == (1, IMAGE_SIZE, IMAGE_SIZE) and heat.dtype == torch.float32
    expected = by_the_formula(small_model(), inputs, 2, layer)
    assert float(expected.max()) > 0
    field = receptive_fields(small_model().architecture, IMAGE_SIZE)[layer]
    for row, column in np.ndindex(expected.shape):
        # The middle of a unit's field has the unit's own value.
        place = [field.center + position * field.stride for position in (row, column)]
        if all(value == int(value) and 0 <= value < IMAGE_SIZE for value in place):
            found = heat[0, int(place[0]), int(place[1])]
            assert float(found) == pytest.approx(float(expected[row, column]), rel=1e-3, abs=1e-6)


def test_several_classes_of_one_image_are_those_one_by_one():
    model, inputs = small_model(), random_inputs()
    together = grad_cam(model, inputs, [0, 3, 1])
    assert together.shape[0] == 3
    for heat, class_index in zip(together, [0, 3, 1], strict=True):
        assert torch.allclose(heat, grad_cam(model, inputs, class_index)[0], atol=1e-7)
    assert not torch.allclose(together[0], together[1])


def test_without_a_class_each_image_is_asked_for_its_best_guess():
    model, inputs = small_model(), random_inputs(5)
    with torch.no_grad():
        model.fc7.bias.sub_(model(inputs).mean(dim=0))
    best = model(inputs).argmax(dim=1).tolist()
    assert len(set(best)) > 1
    assert torch.allclose(grad_cam(model, inputs), grad_cam(model, inputs, best))
    assert torch.allclose(grad_cam(model, inputs, 1)[2], grad_cam(model, inputs[2:3], 1)[0], atol=1e-7)


def test_the_model_stays_as_it_is():
    model = small_model().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    heat = grad_cam(model, random_inputs(), 0)
    assert model.training and model.drop6.training
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(heat, grad_cam(model.eval(), random_inputs(), 0))  # evaluated either way
    assert not heat.requires_grad


def test_a_layer_without_maps_and_a_class_that_is_none_are_refused():
    model = small_model()
    with pytest.raises(UserError, match="layer fc6 of small has no maps; its layers with maps are conv1, norm1"):
        grad_cam(model, random_inputs(), 0, "fc6")
    with pytest.raises(UserError, match="small has no layer 'conv9'"):
        grad_cam(model, random_inputs(), 0, "conv9")
    with pytest.raises(UserError, match="There is no class 4; the network's classes are 0 to 3"):
        grad_cam(model, random_inputs(), 4)
    with pytest.raises(UserError, match="2 classes are asked for of 3 images"):
        grad_cam(model, random_inputs(3), [0, 1])


@pytest.mark.parametrize(
    ("name", "layer"),
    [("as_run", "relu5"), ("conv6", "relu_conv6"), ("bn", "relu5"), ("cifar_quick", "relu3"), ("cifar_13pct", "relu4")],
)
def test_the_default_layer_is_the_last_convolutions(name, layer):
    assert last_maps(get_architecture(name)) == layer


@pytest.mark.parametrize("name", ["cifar_18pct", "cifar_11pct"])
def test_networks_of_every_kind_of_layer_can_be_asked(name):
    model = build_network(name, 3)
    inputs = random_inputs(2, model.image_size)
    for layer in map_layers(model.architecture):
        assert grad_cam(model, inputs, 1, layer).shape == (2, model.image_size, model.image_size)


def test_a_units_value_stands_where_it_looks():
    field = receptive_fields(small_model().architecture, IMAGE_SIZE)["pool1"]
    assert field == (9, 4, 0)
    maps = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    spread = spread_over_pixels(maps, field, (12, 12))[0]
    assert spread[4, 4] == 1 and spread[4, 8] == 3 and spread[8, 4] == 5  # the fields' middles
    assert spread[4, 6] == 2 and spread[6, 6] == 4  # between them
    assert spread[0, 0] == 1 and spread[11, 11] == 7  # beyond the outermost


def test_activations_are_those_of_every_layer_in_evaluation():
    model = small_model().train()
    inputs = random_inputs(2)
    found = layer_activations(model, inputs)
    assert list(found) == [layer.name for layer in model.architecture.layers]
    assert model.training
    assert torch.allclose(found["drop6"], found["relu6"] / 2)
    assert torch.allclose(found["fc7"], model.eval()(inputs), atol=1e-5)
    assert list(layer_activations(model, inputs, ["relu2", "conv1"])) == ["conv1", "relu2"]
    assert map_layers(model.architecture) == ["conv1", "norm1", "pool1", "relu1", "conv2", "relu2", "cnorm2", "pool2"]

"""The module: sizes, dtypes, memory formats, masks, towers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.config import MODEL_NAMES
from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES, AlexNet, build_network, layer_table, minimum_image_size
from alexnet.models.layers import GroupedLinear


@pytest.fixture(scope="module")
def small() -> AlexNet:
    """The half net for images of 67 pixels: everything as_run has, at a hundredth of the cost."""
    return build_network("half", 5, image_size=67, seed=1)


def _images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)) - 120.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_variant_runs_forward_and_backward_into_float32_gradients(name: str, dtype: torch.dtype) -> None:
    size = None if name.startswith("cifar") else 67
    model = build_network(name, 5, image_size=size)
    scale = 1.0 if model.architecture.input_scale == "pixels" else 1 / 60
    images = (_images(2, model.image_size) * scale).to(dtype).to(memory_format=torch.channels_last)
    logits = model(images)
    assert logits.shape == (2, 5)
    assert logits.dtype == dtype
    F.cross_entropy(logits.float(), torch.tensor([1, 2])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
    assert {buffer.dtype for buffer in model.buffers()} <= {torch.float32, torch.int64}


def test_maps_stay_channels_last_until_they_are_flattened() -> None:
    for name in ("as_run", "bn", "cifar_18pct"):
        model = build_network(name, 5, image_size=None if name.startswith("cifar") else 67)
        images = _images(2, model.image_size).to(memory_format=torch.channels_last)
        for layer, outputs in model.activations(images).items():
            if outputs.ndim == 4 and min(outputs.shape[1:]) > 1:
                assert outputs.is_contiguous(memory_format=torch.channels_last), (name, layer)


def test_memory_format_does_not_change_the_result(small: AlexNet) -> None:
    images = _images(2, 67)
    with torch.no_grad():
        contiguous = small.eval()(images)
        channels_last = small(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(contiguous, channels_last, rtol=1e-4, atol=1e-5)


def test_bfloat16_logits_are_close_to_float32s(small: AlexNet) -> None:
    images = _images(4, 67)
    with torch.no_grad():
        exact, rounded = small.eval()(images), small(images.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded.float()).norm() / exact.norm() < 0.03


def test_masks_are_those_of_the_named_layers(small: AlexNet) -> None:
    images = _images(3, 67)
    widths = small.dropout_layers
    assert widths == {"drop6": 4096, "drop7": 4096}
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(3, width, generator=generator) < 0.5 for name, width in widths.items()}
    small.train()
    with torch.no_grad():
        first, second = small(images, masks), small(images, masks)
        drawn = small(images), small(images)
        dropped = small(images, {**masks, "drop7": torch.zeros(3, 4096, dtype=torch.uint8)})
        evaluated = small.eval()(images, masks)
    assert torch.equal(first, second)
    assert not torch.equal(*drawn)
    assert torch.equal(dropped, small.fc8.bias.expand(3, 5))  # type: ignore[operator,union-attr]
    assert torch.equal(evaluated, small(images))


def test_dropout_override_changes_every_layer() -> None:
    model = build_network("half", 5, image_size=67, dropout=0.2)
    assert model.drop6.p == model.drop7.p == 0.2
    without = build_network("half", 5, image_size=67, dropout=0.0)
    assert without.dropout_layers == {}
    images = _images(1, 67)
    with torch.no_grad():
        assert torch.equal(without.train()(images), without.eval()(images))
    assert build_network("torchvision", 5, image_size=67).dropout_layers == {"drop5": 9216, "drop6": 4096}
    with pytest.raises(UserError, match="at least 0 and less than 1"):
        build_network("cifar_quick", dropout=1.0)


def test_activations_are_the_stages_of_forward(small: AlexNet) -> None:
    images = _images(2, 67)
    with torch.no_grad():
        logits = small.eval()(images)
        everything = small.activations(images)
        some = small.activations(images, ["fc7", "conv1"])
    assert list(everything) == [layer.name for layer in small.architecture.layers]
    assert torch.equal(everything["fc8"], logits)
    assert list(some) == ["conv1", "fc7"]
    assert torch.equal(some["conv1"], everything["conv1"])
    assert everything["relu1"].min() == 0 > everything["norm1"].min()
    with pytest.raises(UserError, match="half has no layer 'fc9'; its layers are conv1, norm1"):
        small.activations(images, ["fc9"])


def test_names_of_layers_and_weights(small: AlexNet) -> None:
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    weights = [f"{name}.{kind}" for name in layers for kind in ("weight", "bias")]
    assert list(small.state_dict()) == weights
    assert isinstance(small.conv1, nn.Conv2d)
    assert [name for name, _ in small.named_children()] == [layer.name for layer in small.architecture.layers]


@pytest.mark.parametrize(
    ("change", "error", "remedy"),
    [
        (lambda x: x.byte(), TypeError, ".float()"),
        (lambda x: x.long(), TypeError, ".float()"),
        (lambda x: x > 0, TypeError, ".float()"),
        (lambda x: x.numpy(), TypeError, "tensor (N, 3, 67, 67)"),
        (lambda x: None, TypeError, "tensor (N, 3, 67, 67)"),
        (lambda x: x[0], ValueError, "images[None]"),
        (lambda x: x[0].permute(1, 2, 0), ValueError, "images.permute(2, 0, 1)[None]"),
        (lambda x: x.permute(0, 2, 3, 1), ValueError, "images.permute(0, 3, 1, 2)"),
        (lambda x: x[:, :1], ValueError, "RGB"),
        (lambda x: x[None], ValueError, "5 dimensions"),
        (lambda x: x[..., :66], ValueError, "(2, 3, 67, 66)"),
        (lambda x: torch.cat([x, x], dim=2), ValueError, "(2, 3, 134, 67)"),
    ],
)
def test_images_that_do_not_fit_are_refused_each_with_its_remedy(
    small: AlexNet, change: Callable[[Tensor], object], error: type[Exception], remedy: str
) -> None:
    with pytest.raises(error) as caught:
        small(change(_images(2, 67)))
    assert remedy in str(caught.value)


def test_layers_refuse_whole_numbers(small: AlexNet) -> None:
    for name in ("conv1", "fc6"):
        with pytest.raises((TypeError, RuntimeError)):
            small.apply_layer(name, torch.ones(small.get_submodule(name).weight[:1].shape, dtype=torch.int64))


def test_a_mask_for_a_layer_that_takes_none_is_refused(small: AlexNet) -> None:
    with pytest.raises(ValueError, match="fc7"):
        small(_images(1, 67), {"fc7": torch.ones(1, 4096)})


def test_the_number_of_classes_is_that_of_the_head() -> None:
    model = build_network("cifar_quick", 10)
    assert model.num_classes == 10
    model.fc10 = nn.Linear(64, 3)
    assert model.num_classes == 3
    model.fc10 = nn.Sequential(nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 4), nn.Dropout())
    assert model.num_classes == 4 and model(_images(2, 32)).shape == (2, 4)
    model.fc10 = nn.Identity()
    with pytest.raises(ValueError, match="fc10"):
        _ = model.num_classes


def test_changed_layers_are_those_that_the_record_does_not_describe() -> None:
    model = build_network("cifar_11pct", 10)
    assert model.changed_layers() == []
    model.relu1 = nn.LeakyReLU()
    model.pool2.kernel_size = 2
    model.norm2.record = replace(model.norm2.record, k=2.0)
    assert model.changed_layers() == ["relu1", "norm2", "pool2"]


def test_a_layer_that_was_removed_is_named(small: AlexNet) -> None:
    model = build_network("cifar_quick", 10)
    del model.relu2
    with pytest.raises(ValueError, match="relu2"):
        model(_images(1, 32))


def test_an_impossible_size_names_the_smallest_and_the_variants_that_fit() -> None:
    message = (
        r"image_size = 32 is too small for as_run: .* smallest size that fits is 36 px\. Models for 32 px: cifar_quick"
    )
    with pytest.raises(UserError, match=message):
        build_network("as_run", image_size=32)
    with pytest.raises(UserError, match="smallest size that fits is 4 px"):
        build_network("cifar_13pct", image_size=1)
    with pytest.raises(UserError, match="at least one class"):
        build_network("cifar_quick", 0)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_smallest_size_is_the_smallest_torch_accepts(name: str) -> None:
    record = ARCHITECTURES[name]
    smallest = minimum_image_size(record)
    with torch.device("meta"):
        model = AlexNet(record, 3, smallest)
        assert model(torch.empty(1, 3, smallest, smallest)).shape == (1, 3)
    with pytest.raises(UserError, match=f"smallest size that fits is {smallest} px"):
        AlexNet(record, 3, smallest - 1)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(MODEL_NAMES), extra=st.integers(0, 200), num_classes=st.integers(1, 30))
def test_calculated_shapes_are_those_of_the_tensors(name: str, extra: int, num_classes: int) -> None:
    record = ARCHITECTURES[name]
    size = minimum_image_size(record) + extra
    with torch.device("meta"):
        model = AlexNet(record, num_classes, size)
        outputs = model.activations(torch.empty(2, 3, size, size))
    for row in layer_table(record, num_classes, size):
        assert tuple(outputs[row.name].shape[1:]) == row.output_shape, row.name
        assert row.parameters == sum(p.numel() for p in model.get_submodule(row.name).parameters())


def test_a_record_can_be_built_and_weights_assigned_without_initialising(small: AlexNet) -> None:
    with torch.device("meta"):
        model = AlexNet(small.architecture, 5, 67)
    model.load_state_dict(small.state_dict(), assign=True)
    images = _images(1, 67)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), small.eval()(images))


def test_create_model_takes_a_record() -> None:
    record = replace(ARCHITECTURES["cifar_quick"], name="mine")
    assert build_network(record, 4).architecture == record


def _reached(layer: nn.Module, inputs: int, outputs: slice) -> list[int]:
    """The input maps on which the given output maps of a convolution depend."""
    x = torch.randn(1, inputs, 5, 5, requires_grad=True)
    layer(x)[:, outputs].sum().backward()
    assert x.grad is not None
    return x.grad.abs().amax(dim=(0, 2, 3)).nonzero().flatten().tolist()


def test_towers_without_communication_meet_in_fc8_only() -> None:
    model = build_network("no_communication", 5, image_size=67, seed=1).eval()
    maps = torch.randn(1, 96, 7, 7, requires_grad=True)
    layers = dict(model.layers())
    outputs = maps
    for name in [name for name in layers if name not in ("conv1", "norm1", "pool1", "relu1", "fc8")]:
        outputs = model.apply_layer(name, outputs)
    assert outputs.shape == (1, 4096)
    for half, other in ((slice(0, 48), slice(2048, None)), (slice(48, None), slice(0, 2048))):
        (gradient,) = torch.autograd.grad(outputs[:, other].sum(), maps, retain_graph=True)
        assert not gradient[:, half].any()
        assert gradient.any()
    assert layers["fc8"].in_features == 4096


def test_conv2_conv4_conv5_see_one_tower_and_conv3_sees_both() -> None:
    model = build_network("as_run", 5, image_size=67)
    for name, inputs, outputs in (("conv2", 96, 256), ("conv4", 384, 384), ("conv5", 384, 256)):
        layer = model.get_submodule(name)
        assert _reached(layer, inputs, slice(outputs // 2, None)) == list(range(inputs // 2, inputs)), name
        assert _reached(layer, inputs, slice(0, outputs // 2)) == list(range(inputs // 2)), name
    assert _reached(model.get_submodule("conv3"), 256, slice(192, None)) == list(range(256))
    assert _reached(build_network("one_tower", 5, image_size=67).get_submodule("conv2"), 96, slice(128, None)) == list(
        range(96)
    )


def test_towers_stay_apart_until_conv3() -> None:
    """A change in conv1's first half reaches only the first half of pool2, and everything of conv3."""
    model = build_network("as_run", 5, image_size=67, seed=1).eval()
    images = _images(1, 67)
    with torch.no_grad():
        before = model.activations(images, ["pool2", "conv3"])
        model.conv1.weight[47] += 0.5  # type: ignore[index,operator]
        after = model.activations(images, ["pool2", "conv3"])
    assert torch.equal(before["pool2"][:, 128:], after["pool2"][:, 128:])
    assert not torch.equal(before["pool2"][:, :128], after["pool2"][:, :128])
    changed = (before["conv3"] != after["conv3"]).flatten(2).any(dim=2)[0]
    assert changed[:192].any()
    assert changed[192:].any()


def test_groups_of_a_linear_layer_share_out_an_odd_number_of_units() -> None:
    layer = GroupedLinear(6, 5, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(15.0).reshape(5, 3))
        layer.bias.copy_(torch.arange(5.0))
    x = torch.tensor([[1.0, 2, 3, 4, 5, 6]])
    weight = layer.weight.detach()
    expected = [weight[row] @ x[0, :3] + row for row in range(3)] + [weight[row] @ x[0, 3:] + row for row in (3, 4)]
    assert torch.equal(layer(x)[0].detach(), torch.stack(expected))

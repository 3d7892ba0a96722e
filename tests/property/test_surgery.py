"""A network whose layers were replaced, changed or hooked computes what its layers say, however it is run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from alexnet.models import AlexNet, build_network
from alexnet.models.layers import Dropout, GroupedLinear, Local, ResponseNorm, SpatialNorm
from alexnet.ops import native
from alexnet.ops.response_norm import response_norm_reference, spatial_norm_reference

SIZES = {"as_run": 67, "paper": 67, "caffenet": 67, "torchvision": 63, "half": 67, "bn": 67, "cifar_18pct": 32,
         "cifar_11pct": 24}  # fmt: skip


def plain_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer in evaluation, from its settings as they are and operations of torch."""
    match layer:
        case ResponseNorm(record=r):
            return response_norm_reference(
                x, r.size, r.alpha, r.beta, r.k, alpha_convention=r.alpha_convention, towers=r.towers
            )
        case SpatialNorm(record=r):
            return spatial_norm_reference(x, r.size, r.alpha, r.beta, r.k, alpha_convention=r.alpha_convention)
        case Dropout():
            return x * (1 - layer.p) if layer.scaling == "original" else x
        case nn.Linear():
            return F.linear(x.flatten(1), layer.weight, layer.bias)
        case GroupedLinear() | Local():
            raise NotImplementedError
        case _:
            return layer(x)


def plain(model: AlexNet, images: Tensor) -> Tensor:
    padding = model.architecture.pad_right_bottom
    x = F.pad(images, (0, padding, 0, padding))
    for record in model.architecture.layers:
        layer = model.get_submodule(record.name)
        x = layer(x) if isinstance(layer, Local) else plain_layer(layer, x)
    return x


def swap(kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module | None]:
    return lambda layer: make(layer) if type(layer) is kind else None


def change(kind: type[nn.Module], **values: object) -> Callable[[nn.Module], nn.Module | None]:
    def apply(layer: nn.Module) -> nn.Module | None:
        if type(layer) is not kind:
            return None
        for name, value in values.items():
            setattr(layer, name, value(layer) if callable(value) else value)
        return layer

    return apply


def _patched(layer: nn.Module) -> nn.Module:
    layer.forward = lambda x: F.relu(x) * 0.5  # type: ignore[method-assign]
    return layer


class OwnReLU(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return input.clamp(min=0, max=3)


OPERATIONS: dict[str, Callable[[nn.Module], nn.Module | None]] = {
    "leaky": swap(nn.ReLU, lambda layer: nn.LeakyReLU(0.5)),
    "subclass": swap(nn.ReLU, lambda layer: OwnReLU()),
    "patched forward": swap(nn.ReLU, _patched),
    "no norm": swap(ResponseNorm, lambda layer: nn.Identity()),
    "no spatial norm": swap(SpatialNorm, lambda layer: nn.Identity()),
    "batch norm's place": swap(nn.BatchNorm2d, lambda layer: nn.GroupNorm(8, layer.num_features)),  # type: ignore[arg-type]
    "average pool": swap(nn.MaxPool2d, lambda layer: nn.AvgPool2d(3, 2, ceil_mode=True)),
    "smaller window": change(nn.MaxPool2d, kernel_size=2),  # fits maps of an even side
    "larger window": change(nn.MaxPool2d, kernel_size=4),  # and of an odd one
    "padded pool": change(nn.MaxPool2d, padding=1),
    "tuple window": change(nn.MaxPool2d, kernel_size=(3, 3), stride=(2, 2)),
    "oblong window": change(nn.MaxPool2d, kernel_size=(3, 2)),
    "dilated pool": change(nn.MaxPool2d, kernel_size=2, dilation=2),
    "other k": change(ResponseNorm, record=lambda layer: replace(layer.record, k=1.0, alpha=0.3)),
    "one tower": change(ResponseNorm, record=lambda layer: replace(layer.record, towers=1, alpha=0.5)),
    "spatial size": change(SpatialNorm, record=lambda layer: replace(layer.record, size=3, alpha=0.5)),
    "other dropout": change(Dropout, p=0.25),
}


@contextlib.contextmanager
def watched(model: AlexNet, how: str) -> Iterator[list[nn.Module]]:
    seen: list[nn.Module] = []
    layers = [layer for _, layer in model.layers()]
    handles = []
    if how == "a hook":
        handles = [layer.register_forward_hook(lambda module, *_: seen.append(module)) for layer in layers[::3]]
    elif how == "global hooks":
        handles = [torch_module.register_module_forward_hook(lambda module, *_: seen.append(module))]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    expected = {"a hook": layers[::3], "global hooks": layers}.get(how, [])
    assert [module for module in seen if module in expected] == expected


def images_for(model: AlexNet) -> Tensor:
    scale = 60.0 if model.architecture.input_scale == "pixels" else 1.0
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, model.image_size, model.image_size, generator=generator) * scale


def operate(model: AlexNet, operations: list[str], share: float) -> int:
    """Apply operations to the first `share` of the layers that take them; the number of layers changed."""
    changed = 0
    for name in operations:
        takers = list(model.architecture.layers)
        for record in takers[: max(1, round(share * len(takers)))]:
            result = OPERATIONS[name](model.get_submodule(record.name))
            if result is not None:
                model.set_submodule(record.name, result)
                changed += 1
    return changed


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(SIZES)),
    operations=st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=3, unique=True),
    share=st.sampled_from([0.3, 1.0]),
    how=st.sampled_from(["nothing", "a hook", "global hooks"]),
    kernels=st.booleans(),
)
def test_random_surgery_computes_what_the_layers_say(name, operations, share, how, kernels):
    model = build_network(name, 5, image_size=SIZES[name], seed=2).eval()
    images = images_for(model)
    before = plain(model, images)
    changed = operate(model, operations, share)
    try:
        expected = plain(model, images)
    except RuntimeError:  # such pools do not fit together
        with pytest.raises((RuntimeError, ValueError)):
            model(images)
        return
    native.use(kernels)
    try:
        with watched(model, how):
            logits = model(images)
    finally:
        native.use(True)
    scale = expected.abs().max()
    assert (logits - expected).abs().max() <= 1e-5 * scale
    harmless = {"tuple window"} | {key for key in operations if key == "one tower"}
    if changed and not set(operations) & harmless and before.shape == expected.shape:
        assert not torch.equal(before, expected), "an operation that changes nothing tests nothing"


@pytest.mark.slow
@pytest.mark.parametrize("operations", [["leaky"], ["no norm", "average pool"], ["other k", "larger window"]])
def test_compiled_and_exported_networks_follow_surgery(operations):
    model = build_network("as_run", 5, image_size=67, seed=2).eval()
    images = images_for(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), plain(model, images), rtol=1e-4, atol=1e-5)
    operate(model, operations, 1.0)
    expected = plain(model, images)
    torch.testing.assert_close(compiled(images), expected, rtol=1e-4, atol=1e-5)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), expected, rtol=1e-4, atol=1e-5)

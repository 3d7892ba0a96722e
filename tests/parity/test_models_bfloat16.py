"""Every convolution and fully-connected layer of as_run in bfloat16 against float32.

Some versions of torch compute some bfloat16 convolutions wrongly, and say nothing; these tests would.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alexnet.models import AlexNet, build_network, get_architecture
from alexnet.models.architecture import Convolution, Linear, layer_shapes


@pytest.fixture(scope="module")
def model() -> AlexNet:
    """as_run with weights that bfloat16 represents exactly, so that only the arithmetic is compared."""
    model = build_network("as_run", 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


SHAPES = {
    row.layer.name: row
    for row in layer_shapes(get_architecture("as_run"), 10, 224)
    if isinstance(row.layer, Convolution | Linear)
}


def _results(model: AlexNet, name: str, x: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    layer = model.get_submodule(name)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    outputs = model.apply_layer(name, x)
    outputs.backward(upstream.to(outputs.dtype))
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    results = {"outputs": outputs.detach(), "inputs": x.grad, **gradients}
    return {name: value.double() for name, value in results.items() if value is not None}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", SHAPES)
def test_layer_in_bfloat16_is_the_layer_in_float32(
    model: AlexNet, name: str, memory_format: torch.memory_format
) -> None:
    shapes = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shapes.inputs, generator=generator).bfloat16()
    upstream = torch.randn(2, *shapes.outputs, generator=generator).bfloat16()
    if x.ndim == 4:
        x = x.to(memory_format=memory_format)
    rounded = _results(model, name, x, upstream)
    exact = _results(model, name, x.float(), upstream.float())
    assert set(rounded) == {"outputs", "inputs", "weight", "bias"}
    for quantity, value in exact.items():
        error = (rounded[quantity] - value).norm() / value.norm()
        assert error < 0.01, f"{name} {quantity}: {error:.3g}"

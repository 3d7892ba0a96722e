"""Second and forward-mode derivatives, per-sample gradients: the same with and without kernels, and right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from alexnet.models import AlexNet, build_network, to_plain
from alexnet.ops import native
from alexnet.ops.block import Block, Pool, apply_block, plain_block
from alexnet.ops.chunked_norm import Norm, formula

# torch's forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")

BLOCKS = {
    "norm, pool, ReLU": Block(norm=Norm(5, 0.1, 0.75, 2.0, 2), pool=Pool(3, 2, True), relu_last=True),
    "ReLU, norm, spatial norm, pool": Block(
        relu_first=True, norm=Norm(4, 0.2, 0.5, 1.0, 1), spatial=Norm(3, 0.1, 0.75, 1.0, None), pool=Pool(3, 2, False)
    ),
    "ReLU, pool": Block(relu_first=True, pool=Pool(2, 2, False)),
    "norm": Block(norm=Norm(5, 0.1, 0.75, 2.0, 2)),
}


@pytest.fixture(autouse=True, params=[True, False], ids=["kernels", "plain torch"])
def _kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    native.use(request.param)
    yield
    native.use(True)


def maps(dtype: torch.dtype = torch.float32) -> Tensor:
    # Never two equal values, so that no maximum is undecided; away from zero, so that no ReLU is.
    numbers = torch.randperm(2 * 8 * 7 * 7, generator=torch.Generator().manual_seed(0))
    values = (numbers.double() + 0.5) / 200 - 2
    return values.reshape(2, 8, 7, 7).to(dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_gradient_penalty_of_a_block_is_that_of_float64(block: Block, memory_format: torch.memory_format) -> None:
    def penalty(x: Tensor, run) -> tuple[Tensor, Tensor]:
        x = x.to(memory_format=memory_format).requires_grad_()
        outputs = run(x * 1.5, block)
        upstream = torch.linspace(-1, 1, outputs.numel(), dtype=x.dtype).reshape(outputs.shape).requires_grad_()
        (first,) = torch.autograd.grad(outputs, x, upstream, create_graph=True)
        return torch.autograd.grad((first**2).sum(), (x, upstream))

    expected = penalty(maps(torch.float64), lambda x, b: plain_block(x, b, formula))
    for ours, exact in zip(penalty(maps(), apply_block), expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_third_derivatives_of_a_block(block: Block) -> None:
    x = maps(torch.float64)[:1, :, :5, :5].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: apply_block(x, block), x)

    def second(x: Tensor) -> Tensor:
        (first,) = torch.autograd.grad((apply_block(x, block) ** 2).sum(), x, create_graph=True)
        (again,) = torch.autograd.grad((first**2).sum(), x, create_graph=True)
        return again

    assert torch.autograd.gradcheck(second, x)


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_tangents_are_the_product_with_the_jacobian(block: Block) -> None:
    x, direction = maps(), maps().flip(0)
    _, tangent = jvp(lambda x: apply_block(x, block), (x,), (direction,))
    step = 1e-6
    ahead, behind = (plain_block(x.double() + sign * step * direction.double(), block, formula) for sign in (1, -1))
    exact = (ahead - behind) / (2 * step)
    torch.testing.assert_close(tangent.double(), exact, rtol=1e-3, atol=1e-4)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(apply_block(forward_ad.make_dual(x, direction), block)).tangent
    torch.testing.assert_close(dual, tangent)


@pytest.fixture(scope="module", params=["half", "cifar_18pct", "bn"])
def model(request: pytest.FixtureRequest) -> AlexNet:
    size = 32 if request.param.startswith("cifar") else 67
    return build_network(request.param, 5, image_size=size, seed=1).eval()


def images_of(model: AlexNet) -> Tensor:
    scale = 60.0 if model.architecture.input_scale == "pixels" else 1.0
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, model.image_size, model.image_size, generator=generator) * scale


def test_a_gradient_penalty_reaches_every_weight(model: AlexNet) -> None:
    exact = to_plain(model).double()
    results = []
    for network, dtype in ((model, torch.float32), (exact, torch.float64)):
        images = images_of(model).to(dtype).requires_grad_()
        loss = F.cross_entropy(network(images), torch.tensor([1, 2]))
        (first,) = torch.autograd.grad(loss, images, create_graph=True)
        weights = {name: weight for name, weight in network.named_parameters() if name.endswith("weight")}
        penalty = (first.flatten(1).norm(dim=1) * 1e3).sum()
        results.append(dict(zip(weights, torch.autograd.grad(penalty, weights.values()), strict=True)))
    for name, gradient in results[1].items():
        error = (results[0][name].double() - gradient).norm() / gradient.norm()
        assert gradient.norm() > 0 and error < 1e-3, f"{name}: {error:.3g}"


def test_gradients_of_single_images_are_those_of_batches_of_one(model: AlexNet) -> None:
    images, labels = images_of(model), torch.tensor([1, 2])
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights, image, label):
        return F.cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    several = vmap(grad(loss), (None, 0, 0))(weights, images, labels)
    for index in range(2):
        model.zero_grad()
        F.cross_entropy(model(images[index : index + 1]), labels[index : index + 1]).backward()
        for name, weight in model.named_parameters():
            scale = float(weight.grad.abs().max())
            torch.testing.assert_close(several[name][index], weight.grad, rtol=1e-3, atol=1e-5 * scale)


def test_compiled_forward_derivatives_are_not_those_of_another_function(model: AlexNet) -> None:
    if model.architecture.has_batch_norm:
        pytest.skip("torch.compile does not take the forward derivative of batch norm, and says so")
    images = images_of(model)
    direction = images.flip(0)
    expected = jvp(model, (images,), (direction,))[1]
    compiled = torch.compile(lambda x, v: jvp(model, (x,), (v,))[1], backend="eager")
    torch.testing.assert_close(compiled(images, direction), expected, rtol=1e-3, atol=1e-5)

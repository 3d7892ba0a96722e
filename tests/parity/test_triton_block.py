"""Blocks of Triton kernels against the plain block; on a GPU where there is one, else interpreted."""

import pytest
import torch

from alexnet.ops import block as block_module
from alexnet.ops import native, triton_block
from alexnet.ops.block import Block, Pool, apply_block, plain_block
from alexnet.ops.chunked_norm import Norm
from alexnet.ops.triton_runtime import can_run

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not tested")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [
    *([pytest.mark.gpu] if DEVICE.type == "cuda" else []),
    pytest.mark.skipif(not can_run(DEVICE), reason=f"Triton's kernels do not run on {DEVICE} here"),
]

ACROSS = Norm(5, 2e-5, 0.75, 2.0, 2)
WITHIN = Norm(5, 4e-5, 0.75, 1.0, None)
POOL = Pool(3, 2, True)
BLOCKS = {
    "as_run conv1": Block(norm=ACROSS, pool=POOL, relu_last=True),
    "as_run conv2": Block(relu_first=True, norm=ACROSS, spatial=WITHIN, pool=POOL),
    "paper": Block(relu_first=True, norm=ACROSS, pool=POOL),
    "caffenet": Block(relu_first=True, pool=POOL),
    "norm after pool": Block(norm=ACROSS),
    "spatial alone": Block(relu_first=True, spatial=WITHIN, pool=POOL),
    "pool, then relu": Block(pool=Pool(2, 2, False), relu_last=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_and_its_gradient_are_those_of_its_layers(name, dtype):
    block = BLOCKS[name]
    generator = torch.Generator().manual_seed(0)
    maps = (torch.randn(2, 12, 9, 8, generator=generator) * 60).to(DEVICE, dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    leaf = maps.double().requires_grad_()
    expected = plain_block(leaf, block)
    grad_outputs = torch.randn(expected.shape, generator=generator).to(DEVICE, dtype)
    expected.backward(grad_outputs.double())
    assert triton_block.takes(maps, block)
    outputs, winners = triton_block.block_forward(block, maps)
    gradient = triton_block.block_backward(block, grad_outputs, maps, winners)
    assert outputs.dtype == gradient.dtype == dtype and outputs.is_contiguous(memory_format=torch.channels_last)
    assert winners.dtype == torch.uint8 and winners.numel() == (outputs.numel() if block.pool else 0)
    tolerance = 3e-6 if dtype == torch.float32 else 2e-2
    scale = float(expected.detach().abs().max())
    assert float((outputs.double() - expected.detach()).abs().max()) < tolerance * scale
    # Rounding to bfloat16 between norm and pool can make ties, and so other winners: a few gradients move then.
    differs = (gradient.double() - leaf.grad).abs() > tolerance * leaf.grad.abs().max()
    assert float(differs.double().mean()) <= (0 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_gradient_that_is_differentiated_again_is_not_the_kernels(name, monkeypatch):
    """A second derivative through `apply_block` on the Triton path, against float64."""

    def forward(record, maps, outputs, winners):
        made, won = triton_block.block_forward(record, maps)
        outputs.copy_(made)
        winners.copy_(won)

    def backward(record, maps, grad_outputs, winners, grad_maps):
        grad_maps.copy_(triton_block.block_backward(record, grad_outputs, maps, winners))

    if DEVICE.type == "cpu":  # interpreted kernels take the place of those in C
        monkeypatch.setattr(block_module, "_has_kernels", triton_block.takes)
        monkeypatch.setattr(native, "block_forward", forward)
        monkeypatch.setattr(native, "block_backward", backward)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 12, 9, 8, generator=generator).to(DEVICE) * 60
    results = []
    for x, run in ((maps, apply_block), (maps.double(), plain_block)):
        x = x.requires_grad_()
        (first,) = torch.autograd.grad((run(x * 1.0, BLOCKS[name]) ** 2).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x)
        results.append((first.detach().double(), second.double()))
    for ours, exact in zip(*results, strict=True):
        assert float((ours - exact).norm() / exact.norm()) < 1e-4


def test_what_is_not_taken():
    maps = torch.zeros(1, 8, 4, 4, device=DEVICE).contiguous(memory_format=torch.channels_last)
    assert not triton_block.takes(maps, Block(relu_first=True))
    assert not triton_block.takes(maps.contiguous(), BLOCKS["paper"])
    assert not triton_block.takes(maps, Block(pool=Pool(17, 2, False)))

"""Triton's max pool against torch's; on a GPU where there is one, else interpreted."""

import pytest
import torch
from torch.nn import functional as F

from alexnet.ops import triton_pool
from alexnet.ops.triton_runtime import can_run

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not tested")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [
    *([pytest.mark.gpu] if DEVICE.type == "cuda" else []),
    pytest.mark.skipif(not can_run(DEVICE), reason=f"Triton's kernels do not run on {DEVICE} here"),
]


def check(x, *, size=3, stride=2, ceil_mode=False, relu_after=False):
    """Maxima and gradients are torch's, bit for bit where at most one window's gradient arrives."""
    x = x.to(DEVICE).contiguous(memory_format=torch.channels_last)
    leaf = x.float().requires_grad_()
    expected = F.max_pool2d(leaf, size, stride, ceil_mode=ceil_mode)
    expected = expected.relu() if relu_after else expected
    grad_y = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, x.dtype)
    expected.backward(grad_y.float())
    y, places = triton_pool.pool_forward(x, size=size, stride=stride, ceil_mode=ceil_mode, relu_after=relu_after)
    grad_x = triton_pool.pool_backward(grad_y, places, input_size=tuple(x.shape[2:]), size=size, stride=stride)
    assert y.dtype == grad_x.dtype == x.dtype
    assert torch.equal(y.float().nan_to_num(1e9), expected.detach().nan_to_num(1e9))
    tolerance = 1e-6 if x.dtype == torch.float32 else 8e-3
    torch.testing.assert_close(grad_x.float(), leaf.grad, rtol=tolerance, atol=tolerance)


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu_after", [False, True])
@pytest.mark.parametrize("shape", [(2, 96, 13, 13), (3, 5, 8, 6)])
def test_the_overlapping_pool_of_the_paper(shape, relu_after, dtype):
    check(random(*shape, dtype=dtype), ceil_mode=True, relu_after=relu_after)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 1), (3, 3), (5, 2), (2, 3)])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("side", [7, 8, 11])
def test_any_window(size, stride, ceil_mode, side):
    check(random(1, 3, side, side + 1), size=size, stride=stride, ceil_mode=ceil_mode)


@pytest.mark.parametrize("relu_after", [False, True])
def test_ties_go_to_the_first(relu_after):
    check(torch.randint(-1, 2, (2, 4, 9, 9), generator=torch.Generator().manual_seed(0)).float(), relu_after=relu_after)


@pytest.mark.parametrize("relu_after", [False, True])
def test_not_a_number_wins_and_passes_the_gradient(relu_after):
    x = random(1, 2, 9, 9)
    x[0, 0, 3:5, 4] = float("nan")
    check(x, relu_after=relu_after)


def test_minus_infinity_everywhere():
    check(torch.full((1, 2, 5, 5), float("-inf")))


def test_where_the_relu_cuts_no_gradient_passes():
    x = -random(1, 4, 7, 7).abs().to(DEVICE).contiguous(memory_format=torch.channels_last)
    y, places = triton_pool.pool_forward(x, size=3, stride=2, relu_after=True)
    assert (y == 0).all() and (places == triton_pool.NO_GRADIENT).all()
    assert (triton_pool.pool_backward(y + 1, places, input_size=(7, 7), size=3, stride=2) == 0).all()


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_extents_are_torchs(ceil_mode):
    for extent in range(5, 30):
        for size, stride in ((3, 2), (2, 2), (2, 3), (5, 3)):
            expected = F.max_pool2d(torch.zeros(1, 1, extent, extent), size, stride, ceil_mode=ceil_mode).shape[2]
            assert triton_pool.pooled_extent(extent, size, stride, ceil_mode) == expected

"""Triton's response norms against autograd of the plain formulas; on a GPU where there is one, else interpreted."""

import pytest
import torch

from alexnet.ops import triton_norm, triton_spatial
from alexnet.ops.response_norm import response_norm_reference, spatial_norm_reference
from alexnet.ops.triton_runtime import can_run

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not tested")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [
    *([pytest.mark.gpu] if DEVICE.type == "cuda" else []),
    pytest.mark.skipif(not can_run(DEVICE), reason=f"Triton's kernels do not run on {DEVICE} here"),
]
# The interpreter rounds to bfloat16 towards zero, which costs one bit more than the device's rounding to nearest.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 8e-3 if DEVICE.type == "cpu" else 6e-3}


def maps(*shape, dtype, scale=60.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * scale
    return values.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def relative_error(actual, expected):
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def assert_is(reference, x, grad_y, y, grad_x, tolerance):
    """y and grad_x are what the reference and autograd give in float64."""
    leaf = x.double().requires_grad_()
    expected = reference(leaf)
    expected.backward(grad_y.double())
    assert y.dtype == grad_x.dtype == x.dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert relative_error(y, expected.detach()) < tolerance
    assert relative_error(grad_x, leaf.grad) < tolerance


def check_across(shape, dtype, *, alpha=1e-4, method=None, relu_first=False, **norm):
    x = maps(*shape, dtype=dtype)
    grad_y = maps(*shape, dtype=dtype, scale=1.0, seed=1)
    settings = {"scale": alpha, "relu_first": relu_first, "method": method, **norm}
    y = triton_norm.norm_forward(x, **settings)
    grad_x = triton_norm.norm_backward(grad_y, x, **settings)

    def reference(leaf):
        leaf = leaf.relu() if relu_first else leaf
        return response_norm_reference(leaf, alpha=alpha, alpha_convention="sum", **norm)

    assert_is(reference, x, grad_y, y, grad_x, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["banded", "shifted"])
@pytest.mark.parametrize("relu_first", [False, True])
@pytest.mark.parametrize(("num_maps", "towers"), [(96, 2), (96, 1), (256, 2)])
def test_the_norms_of_the_networks(num_maps, towers, relu_first, method, dtype):
    norm = {"size": 5, "beta": 0.75, "k": 2.0, "towers": towers, "relu_first": relu_first}
    check_across((2, num_maps, 3, 5), dtype, method=method, **norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["banded", "shifted"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("num_maps", "towers"), [(1, 1), (6, 2), (21, 3), (100, 1)])
def test_any_window_and_any_number_of_maps(num_maps, towers, size, method, dtype):
    check_across((1, num_maps, 2, 3), dtype, method=method, size=size, beta=0.6, k=1.0, towers=towers)


def test_a_window_too_wide_for_overlapping_tiles_is_still_right():
    check_across((1, 80, 1, 2), torch.float32, size=33, beta=0.75, k=1.0, towers=1)


def test_more_positions_than_one_program_takes():
    check_across((3, 8, 19, 23), torch.bfloat16, size=5, beta=0.75, k=2.0, towers=2)


@pytest.mark.parametrize("scale", [0.01, 3000.0])
def test_sums_of_squares_keep_their_float32_accuracy(scale):
    # k disappears beside sums of 1e9; and beside k = 2 sums of 1e-8 leave y = x * 2 ** -0.75.
    x = maps(1, 96, 2, 2, dtype=torch.float32, scale=scale)
    norm = {"size": 5, "beta": 0.75, "k": 2.0, "towers": 2}
    y = triton_norm.norm_forward(x, scale=1e-4, **norm)
    expected = response_norm_reference(x.double(), alpha=1e-4, alpha_convention="sum", **norm)
    assert relative_error(y, expected) < 2e-6


@pytest.mark.parametrize("method", ["banded", "shifted"])
def test_no_window_reaches_into_the_other_tower(method):
    x = maps(1, 96, 2, 2, dtype=torch.bfloat16)
    changed = x.clone()
    changed[:, 48] += 1000
    settings = {"size": 5, "scale": 1e-4, "beta": 0.75, "k": 2.0, "towers": 2, "method": method}
    before, after = (triton_norm.norm_forward(values, **settings) for values in (x, changed))
    assert torch.equal(before[:, :48], after[:, :48])
    assert not torch.equal(before[:, 49:51], after[:, 49:51])


@pytest.mark.parametrize("method", ["banded", "shifted"])
def test_not_a_number_is_not_hidden(method):
    x = maps(1, 20, 1, 2, dtype=torch.float32)
    x[0, 7, 0, 0] = float("nan")
    settings = {"size": 5, "scale": 1e-4, "beta": 0.75, "k": 2.0, "towers": 1, "relu_first": True, "method": method}
    y = triton_norm.norm_forward(x, **settings)
    assert y[0, 5:10, 0, 0].isnan().all() and y[0, :, 0, 1].isfinite().all()


def test_an_empty_batch_and_other_memory_formats_of_the_gradient():
    settings = {"size": 5, "scale": 1e-4, "beta": 0.75, "k": 2.0, "towers": 2}
    assert triton_norm.norm_forward(maps(0, 8, 2, 2, dtype=torch.float32), **settings).shape == (0, 8, 2, 2)
    x, grad_y = (maps(2, 8, 3, 3, dtype=torch.float32, seed=seed) for seed in (0, 1))
    expected = triton_norm.norm_backward(grad_y, x, **settings)
    assert torch.equal(triton_norm.norm_backward(grad_y.contiguous(), x, **settings), expected)


def test_what_is_not_taken():
    x = maps(2, 8, 3, 3, dtype=torch.float32)
    assert triton_norm.supports(x)
    assert not triton_norm.supports(x.contiguous())
    assert not triton_norm.supports(x.double()) and not triton_norm.supports(x.half())
    with pytest.raises(ValueError, match="8 maps cannot be divided into 3 towers"):
        triton_norm.norm_forward(x, size=5, scale=1e-4, beta=0.75, k=2.0, towers=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (3, 0.6), (1, 0.75)])
@pytest.mark.parametrize("shape", [(2, 70, 7, 6), (1, 3, 2, 9)])
def test_the_norm_within_maps(shape, size, beta, dtype):
    x = maps(*shape, dtype=dtype)
    grad_y = maps(*shape, dtype=dtype, scale=1.0, seed=1)
    settings = {"size": size, "scale": 4e-5, "beta": beta, "k": 1.0}
    y = triton_spatial.spatial_norm_forward(x, **settings)
    grad_x = triton_spatial.spatial_norm_backward(grad_y, x, **settings)

    def reference(leaf):
        return spatial_norm_reference(leaf, size, 4e-5, beta, 1.0, alpha_convention="sum")

    assert_is(reference, x, grad_y, y, grad_x, TOLERANCES[dtype])

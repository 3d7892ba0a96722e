"""The normalisations against their formulas in NumPy, against autograd of the plain references, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from alexnet.ops import native
from alexnet.ops.response_norm import (
    response_norm,
    response_norm_reference,
    spatial_norm,
    spatial_norm_reference,
)

FORMATS = (torch.contiguous_format, torch.channels_last)
AS_RUN: dict[str, Any] = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "alpha_convention": "mean", "towers": 2}
CNORM2: dict[str, Any] = {"size": 5, "alpha": 1e-3, "beta": 0.75, "k": 1.0, "alpha_convention": "mean"}


@pytest.fixture(autouse=True, params=["kernels", "plain torch"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "kernels" and not native.AVAILABLE:
        pytest.skip("the C kernels were not built (no compiler)")
    monkeypatch.setattr(native, "AVAILABLE", request.param == "kernels")


def _maps(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 60.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def _formula_across(x: np.ndarray, size: int, a: float, beta: float, k: float, towers: int) -> np.ndarray:
    """Paper 3.3, one element at a time; a multiplies the sum of squares."""
    y = np.empty_like(x)
    per_tower = x.shape[1] // towers
    for i in range(x.shape[1]):
        tower = i // per_tower
        window = [j for j in range(i - size // 2, i - size // 2 + size) if 0 <= j < x.shape[1]]
        window = [j for j in window if j // per_tower == tower]
        y[:, i] = x[:, i] / (k + a * sum(x[:, j] ** 2 for j in window)) ** beta
    return y


def _formula_within(x: np.ndarray, size: int, a: float, beta: float, k: float) -> np.ndarray:
    y = np.empty_like(x)
    half = size // 2
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            window = x[:, :, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
            y[:, :, row, column] = x[:, :, row, column] / (k + a * (window**2).sum(axis=(2, 3))) ** beta
    return y


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def _gradients(
    function: Any, x: torch.Tensor, upstream: torch.Tensor, **norm: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.detach().clone().requires_grad_()
    outputs = function(leaf, **norm)
    outputs.backward(upstream.to(outputs.dtype))
    assert leaf.grad is not None
    return outputs.detach(), leaf.grad


@pytest.mark.parametrize(("convention", "a"), [("mean", 2e-5), ("sum", 1e-4)])
def test_all_ones_give_the_values_worked_out_by_hand(convention: Any, a: float) -> None:
    ones = torch.ones(1, 5, 1, 1, dtype=torch.float64)
    outputs = response_norm(ones, 5, 1e-4, 0.75, 2.0, alpha_convention=convention).flatten()
    expected = [(2 + terms * a) ** -0.75 for terms in (3, 4, 5, 4, 3)]
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize(("convention", "divisor"), [("mean", 5), ("sum", 1)])
def test_norm_across_maps_is_the_formula(
    convention: Any, divisor: int, towers: int, beta: float, memory_format: torch.memory_format
) -> None:
    x = _maps(3, 12, 5, 4).to(memory_format=memory_format)
    outputs = response_norm(x, 5, 1e-2, beta, 2.0, alpha_convention=convention, towers=towers)
    expected = _formula_across(x.double().numpy(), 5, 1e-2 / divisor, beta, 2.0, towers)
    assert _relative_error(outputs, torch.from_numpy(expected)) < 1e-6


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("convention", ["mean", "sum"])
def test_norm_within_maps_is_the_formula(convention: Any, size: int, memory_format: torch.memory_format) -> None:
    x = _maps(2, 3, 7, 6).to(memory_format=memory_format)
    outputs = spatial_norm(x, size, 1e-3, 0.75, 1.0, alpha_convention=convention)
    a = 1e-3 / size**2 if convention == "mean" else 1e-3
    expected = _formula_within(x.double().numpy(), size, a, 0.75, 1.0)
    assert _relative_error(outputs, torch.from_numpy(expected)) < 1e-6


def test_norm_within_maps_is_the_average_pool_form_of_the_2012_settings() -> None:
    x = _maps(2, 8, 13, 13)
    expected = x / (1 + 1e-3 * F.avg_pool2d(x * x, 5, 1, 2, count_include_pad=True)) ** 0.75
    assert _relative_error(spatial_norm(x, **CNORM2), expected) < 1e-6


def test_mean_convention_is_torchs_and_caffes() -> None:
    x = _maps(2, 48, 6, 6)
    outputs = response_norm(x, 5, 1e-4, 0.75, 2.0, alpha_convention="mean")
    assert _relative_error(outputs, F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=2.0)) < 1e-6
    printed = response_norm(x, 5, 1e-4, 0.75, 2.0, alpha_convention="sum")
    assert _relative_error(printed, F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)) < 1e-6
    assert _relative_error(outputs, printed) > 1e-3


def test_even_windows_begin_half_a_window_before_as_in_torch() -> None:
    x = _maps(2, 10, 3, 3)
    outputs = response_norm(x, 4, 1e-2, 0.75, 1.0, alpha_convention="mean")
    assert _relative_error(outputs, F.local_response_norm(x, 4, alpha=1e-2, beta=0.75, k=1.0)) < 1e-6


@pytest.mark.parametrize("memory_format", FORMATS)
def test_no_window_reaches_into_the_other_tower(memory_format: torch.memory_format) -> None:
    x = _maps(2, 96, 4, 4).to(memory_format=memory_format)
    changed = x.clone()
    changed[:, 48] += 1000
    before, after = response_norm(x, **AS_RUN), response_norm(changed, **AS_RUN)
    assert torch.equal(before[:, :48], after[:, :48])
    assert not torch.equal(before[:, 49:51], after[:, 49:51])
    one_tower = {**AS_RUN, "towers": 1}
    across = response_norm(x, **one_tower) - response_norm(changed, **one_tower)
    changed_maps = across.abs().amax(dim=(0, 2, 3)).nonzero().flatten().tolist()
    assert changed_maps == [46, 47, 48, 49, 50]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("shape", [(3, 96, 27, 27), (2, 256, 13, 13), (1, 4, 1, 1)])
def test_forward_and_backward_agree_with_autograd_of_the_reference(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format
) -> None:
    x = _maps(*shape, dtype=dtype).to(memory_format=memory_format)
    upstream = _maps(*shape, dtype=dtype, scale=1.0, seed=1)
    for function, reference, norm in (
        (response_norm, response_norm_reference, AS_RUN),
        (spatial_norm, spatial_norm_reference, CNORM2),
    ):
        outputs, gradients = _gradients(function, x, upstream, **norm)
        exact_outputs, exact_gradients = _gradients(reference, x.double(), upstream.double(), **norm)
        assert outputs.dtype == gradients.dtype == dtype
        assert _relative_error(outputs, exact_outputs) < tolerance
        assert _relative_error(gradients, exact_gradients) < tolerance


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 3),
    per_tower=st.integers(1, 9),
    towers=st.integers(1, 3),
    side=st.integers(1, 4),
    size=st.integers(1, 9),
    beta=st.sampled_from([0.75, 0.5, 1.0]),
    convention=st.sampled_from(["mean", "sum"]),
    memory_format=st.sampled_from(FORMATS),
)
def test_any_window_and_any_number_of_maps_agree_with_the_reference(
    batch: int, per_tower: int, towers: int, side: int, size: int, beta: float, convention: Any, memory_format: Any
) -> None:
    x = _maps(batch, per_tower * towers, side, side, dtype=torch.float64).to(memory_format=memory_format)
    upstream = _maps(*x.shape, dtype=torch.float64, seed=1)
    norm = {"size": size, "alpha": 1e-2, "beta": beta, "k": 1.5, "alpha_convention": convention}
    cases: list[tuple[Any, Any, dict[str, Any]]] = [
        (response_norm, response_norm_reference, {**norm, "towers": towers})
    ]
    if size % 2:
        cases.append((spatial_norm, spatial_norm_reference, norm))
    for function, reference, arguments in cases:
        for actual, expected in zip(
            _gradients(function, x, upstream, **arguments),
            _gradients(reference, x, upstream, **arguments),
            strict=True,
        ):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_gradcheck() -> None:
    x = _maps(2, 6, 3, 3, dtype=torch.float64, scale=2.0).requires_grad_()
    for beta in (0.75, 0.6):
        settings_across = {"size": 3, "alpha": 0.3, "beta": beta, "k": 1.2, "alpha_convention": "mean", "towers": 2}
        assert torch.autograd.gradcheck(lambda t: response_norm(t, **settings_across), x)  # noqa: B023
        settings_within = {"size": 3, "alpha": 0.3, "beta": beta, "k": 1.2, "alpha_convention": "sum"}
        assert torch.autograd.gradcheck(lambda t: spatial_norm(t, **settings_within), x)  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("function", "norm"), [(response_norm, AS_RUN), (spatial_norm, CNORM2)])
def test_both_memory_formats_give_the_same_bits_in_their_own_format(
    function: Any, norm: dict[str, Any], dtype: torch.dtype
) -> None:
    # More than one chunk in either format, and a last one that is not full.
    x, upstream = _maps(7, 96, 27, 27, dtype=dtype), _maps(7, 96, 27, 27, dtype=dtype, scale=1.0, seed=1)
    results = []
    for memory_format in FORMATS:
        formatted = x.to(memory_format=memory_format)
        # The upstream gradient may come in the other format.
        outputs, gradients = _gradients(function, formatted, upstream, **norm)
        assert outputs.is_contiguous(memory_format=memory_format)
        assert gradients.is_contiguous(memory_format=memory_format)
        again = _gradients(function, formatted, upstream, **norm)
        assert torch.equal(outputs, again[0])
        assert torch.equal(gradients, again[1])
        results.append((outputs, gradients))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_an_image_is_normalised_alike_in_every_batch() -> None:
    x = _maps(9, 96, 27, 27).to(memory_format=torch.channels_last)
    assert torch.equal(response_norm(x, **AS_RUN)[8:], response_norm(x[8:], **AS_RUN))
    assert torch.equal(spatial_norm(x, **CNORM2)[8:], spatial_norm(x[8:], **CNORM2))


def test_bfloat16_squares_do_not_lose_the_sum() -> None:
    """Inside, arithmetic is float32: the result is the exact one, rounded once."""
    x = _maps(2, 96, 9, 9, dtype=torch.bfloat16)
    expected = response_norm_reference(x.double(), **AS_RUN)
    torch.testing.assert_close(response_norm(x, **AS_RUN).double(), expected, rtol=2**-8, atol=0)


def test_views_that_are_neither_format_are_normalised_too() -> None:
    x = _maps(2, 8, 6, 6)[:, :, ::2, 1:]
    norm = {**AS_RUN, "alpha": 1e-2}
    torch.testing.assert_close(response_norm(x, **norm), response_norm_reference(x, **norm))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="towers"):
        response_norm(torch.ones(1, 7, 2, 2), **AS_RUN)
    with pytest.raises(ValueError, match="positive k"):
        response_norm(torch.ones(1, 8, 2, 2), **{**AS_RUN, "k": 0.0})
    with pytest.raises(ValueError, match="odd"):
        spatial_norm(torch.ones(1, 8, 2, 2), **{**CNORM2, "size": 4})

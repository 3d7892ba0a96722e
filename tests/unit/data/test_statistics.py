"""Mean image and colour covariance against NumPy's own, and where they degenerate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data import statistics
from alexnet.data.squares import ImageSet
from alexnet.data.statistics import Statistics, compute_statistics, from_sums, principal_components, sums_over


def image_set(array: np.ndarray, on_demand: bool = False) -> ImageSet:
    keys = [str(i) for i in range(len(array))]
    labels = np.zeros(len(array), np.int64)
    if on_demand:
        return ImageSet(labels, keys, array.shape[1], read=array.__getitem__)
    return ImageSet(labels, keys, array.shape[1], array=array)


def colored_noise(num_images: int, size: int, seed: int = 0) -> np.ndarray:
    random = np.random.RandomState(seed)
    mixed = random.standard_normal((num_images, size, size, 3)) @ random.uniform(-60, 60, (3, 3)) + 120
    return mixed.clip(0, 255).astype(np.uint8)


def assert_equal(a: Statistics, b: Statistics) -> None:
    assert a.num_images == b.num_images
    for field in ("mean_image", "color_covariance", "color_stdevs", "color_vectors"):
        assert np.array_equal(getattr(a, field), getattr(b, field)), field


@settings(max_examples=25, deadline=None)
@given(num_images=st.integers(1, 40), size=st.integers(2, 12), seed=st.integers(0, 100))
def test_equals_numpy_computed_directly(num_images, size, seed):
    array = colored_noise(num_images, size, seed)
    result = compute_statistics(image_set(array))
    pixels = array.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    assert result.mean_image.dtype == np.float32 and result.num_images == num_images
    np.testing.assert_allclose(result.mean_image, array.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(result.color_covariance, covariance, rtol=1e-9, atol=1e-9)
    scale = result.color_covariance.max()
    rebuilt = result.color_vectors @ np.diag(result.color_stdevs**2) @ result.color_vectors.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-9 * scale)
    np.testing.assert_allclose(result.color_vectors.T @ result.color_vectors, np.eye(3), atol=1e-12)
    assert (np.diff(result.color_stdevs) <= 0).all()


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("on_demand", [False, True])
def test_is_the_same_bit_for_bit_however_it_is_computed(monkeypatch, num_workers, on_demand):
    array = colored_noise(60, 16)
    expected = compute_statistics(image_set(array))
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 7 * 16 * 16 * 3)
    calls = []
    result = compute_statistics(image_set(array, on_demand), num_workers, lambda *call: calls.append(call))
    assert_equal(result, expected)
    assert calls == [(min(7 * i, 60), 60) for i in range(1, 10)]


def test_greyscale_images_have_one_component():
    array = np.repeat(colored_noise(20, 8)[..., :1], 3, axis=-1)
    result = compute_statistics(image_set(array))
    assert result.color_stdevs[1:].tolist() == [0, 0]
    np.testing.assert_allclose(result.color_stdevs[0], np.sqrt(3) * array[..., 0].std(), rtol=1e-9)
    np.testing.assert_allclose(result.color_vectors[:, 0], 1 / np.sqrt(3), rtol=1e-9)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
def test_images_of_one_color_have_no_deviation_at_all(color):
    result = compute_statistics(image_set(np.full((5, 4, 4, 3), color, np.uint8)))
    assert result.color_stdevs.tolist() == [0, 0, 0] and not result.color_covariance.any()
    assert np.isfinite(result.color_vectors).all()
    assert result.mean_image[0, 0].tolist() == list(color)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.integers(0, 255), min_size=6, max_size=30))
def test_deviations_are_never_negative_or_nan(values):
    array = np.resize(np.array(values, np.uint8), (len(values) // 3 or 1, 1, 1, 3))
    result = compute_statistics(image_set(array))
    assert np.isfinite(result.color_stdevs).all() and (result.color_stdevs >= 0).all()


def test_the_largest_component_of_each_vector_is_positive():
    for seed in range(20):
        random = np.random.RandomState(seed)
        root = random.standard_normal((3, 3))
        _, vectors = principal_components(root @ root.T)
        for column in vectors.T:
            assert column[np.abs(column).argmax()] > 0


def test_reproduces_the_released_color_components():
    """paper.md 3.5: a covariance put together from the 2014 release's numbers falls apart into them again."""
    stdevs = np.array([121.7800610, 37.0938885, 19.7208330])
    vectors = np.array(
        [
            [-0.56351045, -0.71257945, 0.41795513],
            [-0.57618440, -0.02354167, -0.81698062],
            [-0.59200296, 0.70119634, 0.39731118],
        ]
    )
    actual_stdevs, actual = principal_components(vectors @ np.diag(stdevs**2) @ vectors.T)
    np.testing.assert_allclose(actual_stdevs, stdevs, rtol=1e-6)
    np.testing.assert_allclose(actual, vectors * [-1, -1, -1], atol=1e-6)


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        compute_statistics(image_set(np.empty((0, 4, 4, 3), np.uint8)))


@pytest.mark.parametrize("on_demand", [False, True])
def test_shares_of_the_images_add_up_to_the_whole(monkeypatch, on_demand):
    array = colored_noise(41, 8)
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 5 * 8 * 8 * 3)
    images = image_set(array, on_demand)
    parts = [sums_over(images, part, 2) for part in (range(13), range(13, 13), range(13, 41))]
    pixels, products = (sum(sums) for sums in zip(*parts, strict=True))
    assert_equal(from_sums(pixels, products, 41), compute_statistics(image_set(array)))

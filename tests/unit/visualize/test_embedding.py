import numpy as np
import pytest

from alexnet.errors import UserError
from alexnet.visualize.embedding import embed


def two_groups(count, width, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)).astype(np.float32)
    features[: count // 2] += 12
    return features


@pytest.mark.parametrize("width", [8, 300])
def test_what_is_apart_stays_apart(width):
    points = embed(two_groups(60, width))
    assert points.shape == (60, 2) and points.dtype == np.float32
    near = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(60)
    nearest = near.argmin(axis=1)
    assert ((nearest < 30) == (np.arange(60) < 30)).all()
    assert points[:, 0].std() >= points[:, 1].std()  # the longest direction lies across the page
    assert np.array_equal(points, embed(two_groups(60, width)))


def test_a_handful_of_images_has_a_map_too():
    assert np.isfinite(embed(two_groups(5, 100))).all()
    with pytest.raises(UserError, match="a map of 3 images says nothing; give at least four"):
        embed(two_groups(3, 10))


def test_features_that_are_all_equal_are_refused():
    with pytest.raises(UserError, match="all images have the same features"):
        embed(np.ones((10, 5), np.float32))

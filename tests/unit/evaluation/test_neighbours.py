import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.evaluation import neighbours
from alexnet.evaluation.features import open_features, write_features
from alexnet.evaluation.neighbours import NeighbourIndex


def brute_force(features, queries, k):
    """By the definition, in float64."""
    differences = queries.astype(np.float64)[:, None] - features.astype(np.float64)[None]
    distances = np.sqrt((differences**2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@given(
    st.integers(1, 300),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 64),
    st.sampled_from([np.float16, np.float32]),
)
@settings(max_examples=60, deadline=None)
def test_the_neighbours_are_those_of_brute_force(count, width, num_queries, k, block_rows, dtype):
    rng = np.random.default_rng([count, width, k])
    features = np.maximum(rng.normal(size=(count, width)), 0).astype(dtype)  # as after a ReLU, with many ties at 0
    queries = rng.normal(size=(num_queries, width)).astype(np.float32)
    index = NeighbourIndex(features)
    index.block_rows = block_rows
    for _ in range(2):  # the second time with the lengths that were kept
        found = index.search(queries, k)
        _, distances = brute_force(features, queries, k)
        assert found.indices.shape == (num_queries, min(k, count))
        assert found.distances == pytest.approx(distances, rel=1e-5)
        at_found = np.linalg.norm(features[found.indices].astype(np.float64) - queries[:, None], axis=2)
        assert found.distances == pytest.approx(at_found, rel=1e-5)
        assert all(len(set(row)) == len(row) for row in found.indices.tolist())


def test_far_from_the_origin_the_order_is_still_exact():
    # Squared lengths are 40,000 times the squared distances: the product alone gets neither distances nor order right.
    rng = np.random.default_rng(0)
    features = (300 + rng.normal(size=(2000, 32))).astype(np.float32)
    found = NeighbourIndex(features).search(features[:50], 5)
    assert np.array_equal(found.indices, brute_force(features, features[:50], 5)[0])
    assert np.array_equal(found.indices[:, 0], np.arange(50)) and not found.distances[:, 0].any()


def test_a_file_is_searched_as_it_lies(tmp_path, monkeypatch):
    features = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    write_features(tmp_path / "features.npy", features.split(128), 500)
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 64 * 4 * 100)
    index = NeighbourIndex(open_features(tmp_path / "features.npy"))
    assert len(index) == 500 and index.block_rows == 100
    found = index.search(features[40:44], 3)
    assert np.array_equal(found.indices, brute_force(features.half().numpy(), features[40:44].numpy(), 3)[0])
    assert np.array_equal(found.indices[:, 0], [40, 41, 42, 43])

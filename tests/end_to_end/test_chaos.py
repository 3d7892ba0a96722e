"""A few of the trials of tests/chaos.py; its docstring says how all are run."""

from pathlib import Path

import chaos
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes under /proc"),
]


def test_what_is_broken_at_random_ends_with_the_same_weights(tmp_path):
    results = chaos.run(range(2), tmp_path)
    assert [result["differing_weights"] for result in results] == [[], []]
    assert all(result["starts"] > 1 for result in results)

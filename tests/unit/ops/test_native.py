"""The compiled kernels: which are used."""

import pytest

from alexnet.ops import native


@pytest.mark.skipif(not native.AVAILABLE, reason="the C kernels were not built (no compiler)")
def test_kernels_of_another_version_are_not_used(monkeypatch):
    assert native._load()[0] is not None
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    library, reason = native._load()
    assert library is None and "another version" in reason and "rebuild" in reason
    monkeypatch.setattr(native, "AVAILABLE", False)
    monkeypatch.setattr(native, "_reason", reason)
    assert native.describe() == f"no compiled kernels ({reason})"

"""A .caffemodel written here, read by this package and by OpenCV's reader of Caffe files: the same logits."""

from __future__ import annotations

from pathlib import Path

import caffe_files
import numpy as np
import pytest
import torch

from alexnet import create_model, import_weights
from alexnet.training.checkpoint import build_model


@pytest.mark.parametrize(("variant", "old"), [("caffe", True), ("caffenet", False)])
def test_opencv_and_we_read_the_same_network(variant: str, old: bool, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed: no second reader of Caffe files")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} does not read Caffe files any more; version 4 does")
    model = create_model(variant, 20, seed=5).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # biases that differ, activations that do not vanish
            parameter.add_(0.05 * torch.randn(parameter.shape)) if name.endswith("bias") else parameter.mul_(2)
    path = caffe_files.write(tmp_path / "net.caffemodel", caffe_files.net_of(model, old=old))
    (tmp_path / "net.prototxt").write_text(caffe_files.prototxt_of(model))
    images = 60 * np.random.default_rng(0).standard_normal((2, 3, 227, 227)).astype(np.float32)

    checkpoint = import_weights(path)
    assert checkpoint.architecture.name == variant
    with torch.no_grad():
        ours = build_model(checkpoint)(torch.from_numpy(images)).numpy()
    net = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(path))
    net.setInput(images)
    theirs = net.forward("fc8")
    assert np.abs(theirs).max() > 1, "logits of nothing prove nothing"
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

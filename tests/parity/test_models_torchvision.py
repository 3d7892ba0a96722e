"""The torchvision variant against torchvision's own model, where torchvision is installed."""

from __future__ import annotations

import pytest
import torch

from alexnet.models import create_model

NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}


@pytest.mark.parametrize("image_size", [224, 127])
def test_equal_weights_give_equal_logits(image_size: int) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    ours = create_model("torchvision", 10, image_size=image_size, seed=2).eval()
    theirs = models.alexnet(num_classes=10).eval()
    state = ours.state_dict()
    theirs.load_state_dict({f"{NAMES[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in state.items()})
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)

"""Dropout masks made by Triton are those that NumPy draws; on a GPU where there is one, else interpreted."""

import pytest
import torch

from alexnet.ops.triton_masks import draw_masks, supports
from alexnet.runtime.randomness import draw_dropout_masks

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not tested")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [
    *([pytest.mark.gpu] if DEVICE.type == "cuda" else []),
    pytest.mark.skipif(not supports(DEVICE), reason=f"Triton's kernels do not run on {DEVICE} here"),
]


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (3, 1), (7, 16), (12345, 2**33 + 5)])
@pytest.mark.parametrize("batch_size", [1, 6])
def test_masks_are_those_of_the_host_bit_for_bit(seed, step, batch_size):
    layers = {"drop6": (4096, 0.5), "drop7": (37, 0.3), "drop8": (16, 0.999)}
    settings = {"seed": seed, "step": step, "batch_size": batch_size}
    expected = draw_dropout_masks(layers, **settings, device=torch.device("cpu"))
    masks = draw_masks(layers, **settings, device=DEVICE)
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and mask.device.type == DEVICE.type
        assert torch.equal(mask.cpu(), expected[name]), name


def test_no_layers_and_no_images():
    assert draw_masks({}, seed=0, step=0, batch_size=4, device=DEVICE) == {}
    assert draw_masks({"drop6": (8, 0.5)}, seed=0, step=0, batch_size=0, device=DEVICE)["drop6"].shape == (0, 8)

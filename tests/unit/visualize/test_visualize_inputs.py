import numpy as np
import pytest
import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import to_square
from alexnet.errors import UserError
from alexnet.visualize.inputs import center_crop, whole_image

MEAN = torch.arange(20 * 20 * 3, dtype=torch.float32).reshape(20, 20, 3) / 10
PREPROCESSING = Preprocessing(20, 16, "pixels", "rgb", "center_crop", MEAN)


def photograph(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_crop_is_the_middle_of_the_square_minus_its_mean():
    pixels = photograph(50, 30)
    crop = center_crop(pixels, PREPROCESSING)
    square = to_square(pixels, 20)[2:18, 2:18]
    assert np.array_equal(crop.pixels, square)
    expected = torch.from_numpy(square.astype(np.float32)) - MEAN[2:18, 2:18]
    assert torch.allclose(crop.inputs, expected.permute(2, 0, 1)[None], atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "side", "size"),
    [
        (100, 100, 32, (32, 32)),
        (100, 150, 32, (32, 48)),
        (90, 60, 40, (56, 40)),
        (10, 12, 35, (32, 40)),  # 35 x 42, cut to whole steps of 8
        (20, 2000, 16, (16, 64)),  # at most four times as long
    ],
)
def test_a_whole_image_has_room_for_whole_windows(height, width, side, size):
    whole = whole_image(photograph(height, width), PREPROCESSING, side, 8)
    assert whole.pixels.shape == (*size, 3) and whole.inputs.shape == (1, 3, *size)
    expected = torch.from_numpy(whole.pixels.astype(np.float32)) - MEAN.mean(dim=(0, 1))
    assert torch.allclose(whole.inputs, expected.permute(2, 0, 1)[None], atol=1e-4)


@pytest.mark.parametrize("is_tall", [False, True])
def test_the_middle_of_the_image_is_kept(is_tall):
    pixels = np.zeros((16, 600, 3), np.uint8)
    pixels[:, 300 - 32 : 300 + 32] = 255
    pixels = pixels.transpose(1, 0, 2).copy() if is_tall else pixels
    assert (whole_image(pixels, PREPROCESSING, 16, 8).pixels == 255).all()


def test_a_side_shorter_than_the_networks_input_is_refused():
    with pytest.raises(UserError, match="a side of 15 pixels is too short for a network that sees 16"):
        whole_image(photograph(20, 20), PREPROCESSING, 15, 8)

"""From bytes to network inputs."""

import pytest
import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.ops import native


@pytest.fixture(autouse=True, params=["kernels", "plain torch"])
def _way(request, monkeypatch):
    if request.param == "kernels" and not native.AVAILABLE:
        pytest.skip("the C kernels were not built (no compiler)")
    monkeypatch.setattr(native, "AVAILABLE", request.param == "kernels")


def make(**changes):
    generator = torch.Generator().manual_seed(0)
    fields = {
        "image_size": 16,
        "crop_size": 8,
        "input_scale": "pixels",
        "channel_order": "rgb",
        "mean_mode": "center_crop",
        "mean_image": torch.rand(16, 16, 3, generator=generator) * 255,
    }
    return Preprocessing(**{**fields, **changes})


CROPS = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
OFFSETS = torch.tensor([[0, 0], [8, 3], [5, 8]])
FLIPS = torch.tensor([False, True, False])


def nchw(images):
    return images.permute(0, 3, 1, 2)


def test_the_2012_code_subtracts_the_centre_crop_of_the_mean_whatever_the_crop():
    preprocessing = make()
    images = preprocessing.normalize(CROPS, OFFSETS, FLIPS)
    assert torch.equal(images, nchw(CROPS.float() - preprocessing.mean_image[4:12, 4:12]))


def test_the_paper_subtracts_each_pixels_own_mean():
    preprocessing = make(mean_mode="at_crop")
    images = preprocessing.normalize(CROPS, OFFSETS, FLIPS)
    for row, (top, left) in enumerate(OFFSETS.tolist()):
        mean = preprocessing.mean_image[top : top + 8, left : left + 8]
        mean = mean.flip(1) if FLIPS[row] else mean
        assert torch.equal(images[row], (CROPS[row].float() - mean).permute(2, 0, 1))


def test_at_crop_without_offsets_is_the_centre_and_follows_flips():
    preprocessing = make(mean_mode="at_crop")
    images = preprocessing.normalize(CROPS, flips=FLIPS)
    mean = preprocessing.mean_image[4:12, 4:12]
    assert torch.equal(images[0], (CROPS[0].float() - mean).permute(2, 0, 1))
    assert torch.equal(images[1], (CROPS[1].float() - mean.flip(1)).permute(2, 0, 1))


def test_an_image_equal_to_the_mean_image_becomes_zero_at_every_crop_and_flip():
    mean = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(2)).float()
    preprocessing = make(mean_mode="at_crop", mean_image=mean)
    square = mean.to(torch.uint8)
    crops = torch.stack([square[t : t + 8, left : left + 8] for t, left in OFFSETS.tolist()])
    crops[1] = crops[1].flip(1)
    assert not preprocessing.normalize(crops, OFFSETS, FLIPS).any()


def test_the_scalar_mean_is_one_number_a_channel():
    preprocessing = make(mean_mode="channel")
    images = preprocessing.normalize(CROPS, OFFSETS, FLIPS)
    assert torch.equal(images, nchw(CROPS.float() - preprocessing.mean_image.mean(dim=(0, 1))))


def test_unit_scale_is_torchvisions():
    images = make(input_scale="unit").normalize(CROPS)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(images, nchw((CROPS.float() / 255 - mean) / std), atol=1e-5)


def test_bgr_reverses_the_channels_after_the_mean():
    rgb, bgr = make().normalize(CROPS), make(channel_order="bgr").normalize(CROPS)
    assert torch.equal(rgb.flip(1), bgr)


@pytest.mark.parametrize("scale", ["pixels", "unit"])
def test_colour_noise_is_constant_over_the_pixels_of_an_image(scale):
    shift = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0], [-4.0, 5.0, 6.0]])
    preprocessing = make(input_scale=scale)
    change = preprocessing.normalize(CROPS, color_shift=shift) - preprocessing.normalize(CROPS)
    expected = shift if scale == "pixels" else shift / (255 * torch.tensor([0.229, 0.224, 0.225]))
    assert torch.allclose(change, expected[:, :, None, None].expand_as(change), atol=1e-4)


def test_noise_and_divisor_come_after_the_mean():
    # S convdata_jpeg.py:65,179: minus mean, plus noise, then divided by 1.1; nothing is clipped.
    preprocessing = make()
    shift = torch.full((3, 3), 400.0)
    images = preprocessing.normalize(CROPS, color_shift=shift, divisor=1.1)
    expected = (CROPS.float() - preprocessing.mean_image[4:12, 4:12] + 400) / 1.1
    assert torch.allclose(images, nchw(expected), rtol=1e-6)
    assert images.max() > 255


def test_the_result_is_channels_last_in_the_asked_precision():
    images = make().normalize(CROPS, dtype=torch.bfloat16)
    assert images.shape == (3, 3, 8, 8) and images.dtype == torch.bfloat16
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_it_survives_a_round_trip_through_plain_types():
    preprocessing = make(mean_mode="at_crop", channel_order="bgr")
    again = Preprocessing.from_dict(preprocessing.to_dict())
    assert torch.equal(again.normalize(CROPS, OFFSETS, FLIPS), preprocessing.normalize(CROPS, OFFSETS, FLIPS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "fields",
    [{"mean_mode": "center_crop"}, {"mean_mode": "at_crop"}, {"mean_mode": "channel"}, {"input_scale": "unit"}],
    ids=str,
)
def test_the_kernel_and_plain_torch_agree(fields, channel_order, dtype, monkeypatch):
    preprocessing = make(channel_order=channel_order, **fields)
    arguments = (CROPS, OFFSETS, FLIPS, torch.randn(3, 3, generator=torch.Generator().manual_seed(3)) * 9, 1.1, dtype)
    monkeypatch.setattr(native, "AVAILABLE", False)
    plain = preprocessing.normalize(*arguments)
    monkeypatch.undo()
    actual = preprocessing.normalize(*arguments)
    assert actual.dtype == dtype and actual.stride() == plain.stride()
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(actual, plain, rtol=tolerance, atol=tolerance)


def test_only_bytes_are_read_by_the_kernel():
    preprocessing = make(mean_mode="at_crop")
    images = preprocessing.normalize(CROPS.float() + 0.5, OFFSETS, FLIPS)
    assert torch.equal(images, preprocessing.normalize(CROPS, OFFSETS, FLIPS) + 0.5)


def test_what_would_be_read_as_something_else_is_taken_for_what_it_is():
    preprocessing = make(mean_mode="at_crop", mean_image=make().mean_image.double())
    shift = torch.ones(3, 3, dtype=torch.float64)
    images = preprocessing.normalize(CROPS, OFFSETS.int(), FLIPS, color_shift=shift)
    expected = make(mean_mode="at_crop").normalize(CROPS, OFFSETS, FLIPS, color_shift=shift.float())
    torch.testing.assert_close(images.float(), expected)


@pytest.mark.parametrize(
    ("crops", "offsets", "flips", "shift"),
    [
        (torch.zeros(3, 8, 8, 4, dtype=torch.uint8), OFFSETS, None, None),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), OFFSETS, None, None),
        (torch.zeros(3, 20, 8, 3, dtype=torch.uint8), None, None, None),
        (CROPS, torch.tensor([[0, 0], [9, 3], [5, 8]]), None, None),
        (CROPS, torch.tensor([[0, 0], [8, 3], [5, -1]]), None, None),
        (CROPS, OFFSETS[:2], None, None),
        (CROPS, OFFSETS, FLIPS[:2], None),
        (CROPS, OFFSETS, None, torch.zeros(1, 3)),
    ],
)
def test_the_kernel_does_not_read_beyond_what_it_is_given(crops, offsets, flips, shift):
    if not native.AVAILABLE:
        pytest.skip("torch looks after itself")
    with pytest.raises(ValueError, match=r"are not|do not lie in the mean"):
        make(mean_mode="at_crop").normalize(crops, offsets, flips, shift)

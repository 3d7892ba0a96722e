"""Triton's network inputs against `Preprocessing.normalize`; on a GPU where there is one, else interpreted."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from alexnet.data.preprocessing import Preprocessing
from alexnet.ops import triton_runtime
from alexnet.ops.triton_input import InputMaker

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
SIDE, SIZE, NUM_IMAGES = 20, 16, 3


@pytest.fixture(params=["kernel", "reference"], autouse=True)
def _way(request, monkeypatch):
    """Every test is of the kernel and of the same in torch's operations."""
    if request.param == "reference":
        monkeypatch.setattr(triton_runtime, "HAS_TRITON", False)
    elif not triton_runtime.can_run(DEVICE):
        pytest.skip("Triton is not installed or does not run here: its kernels are not tested")


def generator():
    return torch.Generator().manual_seed(0)


def preprocessing(scale, order, mode, side=SIDE):
    return Preprocessing(side, SIZE, scale, order, mode, torch.rand(side, side, 3, generator=generator()) * 255)


def squares(side=SIDE):
    return torch.randint(0, 256, (NUM_IMAGES, side, side, 3), dtype=torch.uint8, generator=generator())


def draws(has_offsets, has_flips, has_shift):
    return (
        torch.tensor([[0, 4], [3, 1], [2, 2]]) if has_offsets else None,
        torch.tensor([True, False, True]) if has_flips else None,
        torch.randn(NUM_IMAGES, 3, generator=generator()) * 10 if has_shift else None,
    )


def cut(images, offsets, flips):
    """Crops as the loader's threads cut them."""
    border = (images.shape[1] - SIZE) // 2
    crops = []
    for row, image in enumerate(images):
        top, left = (border, border) if offsets is None else offsets[row].tolist()
        crop = image[top : top + SIZE, left : left + SIZE]
        crops.append(crop.flip(1) if flips is not None and flips[row] else crop)
    return torch.stack(crops)


def on_device(*tensors):
    return [None if tensor is None else tensor.to(DEVICE) for tensor in tensors]


def check(rule, has_offsets, has_flips, has_shift, divisor, dtype=torch.float32):
    offsets, flips, shift = draws(has_offsets, has_flips, has_shift)
    images = squares(rule.image_size)
    crops = cut(images, offsets, flips)
    expected = rule.normalize(crops, offsets, flips, shift, divisor, dtype)
    make = InputMaker(rule, DEVICE)
    arguments = dict(zip(("offsets", "flips", "color_shift"), on_device(offsets, flips, shift), strict=True))
    for form, pixels in (("crops", crops), ("squares", images)):
        for given in (divisor, torch.tensor([divisor], device=DEVICE)):
            inputs = make(pixels.to(DEVICE), form=form, dtype=dtype, divisor=given, **arguments)
            assert inputs.dtype == dtype and inputs.is_contiguous(memory_format=torch.channels_last)
            # To rounding: a GPU may multiply by the inverse where a CPU divides.
            tolerance = 1e-6 if dtype == torch.float32 else 8e-3
            torch.testing.assert_close(inputs.cpu(), expected, rtol=tolerance, atol=2e-5)


CHOICES = list(itertools.product((False, True), repeat=3))


@pytest.mark.parametrize("mode", ["center_crop", "at_crop", "channel"])
@pytest.mark.parametrize("scale", ["pixels", "unit"])
@pytest.mark.parametrize("divisor", [1.0, 1.1])
def test_inputs_are_those_of_the_preprocessing(scale, mode, divisor):
    for order, (has_offsets, has_flips, has_shift) in zip(("rgb", "bgr") * 4, CHOICES, strict=True):
        check(preprocessing(scale, order, mode), has_offsets, has_flips, has_shift, divisor)


def test_in_bfloat16():
    check(preprocessing("pixels", "rgb", "at_crop"), True, True, True, 1.1, torch.bfloat16)


def test_squares_no_larger_than_the_crop():
    rule = preprocessing("pixels", "rgb", "at_crop", side=SIZE)
    images = squares(SIZE)
    _, flips, _ = draws(False, True, False)
    make = InputMaker(rule, DEVICE)
    crops = cut(images, None, flips)
    expected = rule.normalize(crops, None, flips)
    for form, pixels in (("crops", crops), ("squares", images)):
        inputs = make(pixels.to(DEVICE), form=form, flips=flips.to(DEVICE), dtype=torch.float32)
        torch.testing.assert_close(inputs.cpu(), expected)


@pytest.mark.parametrize("padding", [(0, 4), (2, 2), (1, 3)])
def test_blocks_are_the_padded_images_unshuffled(padding):
    rule = preprocessing("pixels", "bgr", "at_crop")
    offsets, flips, shift = draws(True, True, True)
    images = rule.normalize(cut(squares(), offsets, flips), offsets, flips, shift, 1.1)
    expected = F.pixel_unshuffle(F.pad(images, padding * 2), 4)
    arguments = dict(zip(("offsets", "flips", "color_shift"), on_device(offsets, flips, shift), strict=True))
    blocks = InputMaker(rule, DEVICE)(
        squares().to(DEVICE), form="squares", dtype=torch.float32, divisor=1.1, block=4, padding=padding, **arguments
    )
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(blocks.cpu(), expected, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("padding", [(0, 4), (2, 2)])
def test_a_convolution_of_blocks_is_conv1(padding):
    # conv1 is 11x11 with stride 4; over 4x4 blocks it is 3x3 with stride 1, its kernel padded to 12x12.
    rule = preprocessing("pixels", "rgb", "at_crop")
    make = InputMaker(rule, DEVICE)
    crops = cut(squares(), None, None).to(DEVICE)
    images = make(crops, dtype=torch.float32)
    weight = torch.randn(8, 3, 11, 11, generator=generator()).to(DEVICE)
    expected = F.conv2d(F.pad(images, padding * 2).double(), weight.double(), stride=4)
    blocks = make(crops, dtype=torch.float32, block=4, padding=padding)
    block_weight = F.pixel_unshuffle(F.pad(weight, (0, 1, 0, 1)), 4)
    actual = F.conv2d(blocks.double(), block_weight.double())
    torch.testing.assert_close(actual[:, :, : expected.shape[2], : expected.shape[3]], expected)


def test_bytes_of_another_size_are_refused():
    make = InputMaker(preprocessing("pixels", "rgb", "at_crop"), DEVICE)
    with pytest.raises(ValueError, match=r"crops are bytes \(N, 16, 16, 3\)"):
        make(squares().to(DEVICE), dtype=torch.float32)
    with pytest.raises(ValueError, match="blocks of 3"):
        make(squares().to(DEVICE), form="squares", dtype=torch.float32, block=3)

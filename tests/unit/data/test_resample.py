"""The kernels for crops and squares give Pillow's and NumPy's bytes, and a crop of a square never needs the square."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.data.resample import cut_crop, cut_square_crop, resampling_axis, to_square
from alexnet.ops import native
from alexnet.ops.native import pixels as kernels

needs_kernels = pytest.mark.skipif(not native.AVAILABLE, reason="the kernels were not compiled")


@pytest.fixture(params=["kernels", "plain"])
def way(request, monkeypatch):
    """Both ways of computing: with the compiled kernels and without."""
    if request.param == "kernels" and not native.AVAILABLE:
        pytest.skip("the kernels were not compiled")
    monkeypatch.setattr(native, "AVAILABLE", request.param == "kernels")
    return request.param


@pytest.fixture(params=range(len(native.INSTRUCTION_SETS)), ids=native.INSTRUCTION_SETS)
def instruction_set(request, monkeypatch):
    """Each instruction set that this processor has."""
    library = native._loaded()
    if request.param > library.instruction_set:
        pytest.skip("this processor lacks it")
    monkeypatch.setattr(native, "_library", library._replace(instruction_set=request.param))


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def resize_with_kernel(pixels, box, size, resampling):
    out = np.empty((*size, 3), np.uint8)
    left, top, right, bottom = box
    rows = resampling_axis(pixels.shape[0], top, bottom, size[0], resampling)
    columns = resampling_axis(pixels.shape[1], left, right, size[1], resampling)
    kernels.resample(pixels, rows, columns, out)
    return out


@needs_kernels
@settings(max_examples=150, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 70)] * 2),
    size=st.integers(1, 40),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    resampling=st.sampled_from(["bilinear", "bicubic"]),
    seed=st.integers(0, 5),
)
def test_resampling_along_one_axis_gives_the_bytes_of_pillow(sides, size, ends, resampling, seed):
    # Along one at a time: which of two comes first, and is rounded first, depends on Pillow's version.
    pixels = noise(*sides, seed)
    kind = Image.Resampling.BILINEAR if resampling == "bilinear" else Image.Resampling.BICUBIC
    for axis, length in enumerate(sides):
        start, stop = sorted(end * length for end in ends)
        if stop - start < 0.01:
            start, stop = 0, length
        box = (0, start, sides[1], stop) if axis == 0 else (start, 0, stop, sides[0])
        new = (size, sides[1]) if axis == 0 else (sides[0], size)
        expected = np.asarray(Image.fromarray(pixels).resize(new[::-1], kind, box))
        assert np.array_equal(resize_with_kernel(pixels, box, new, resampling), expected)


@needs_kernels
def test_the_part_is_kept_in_single_precision_as_pillow_does():
    pixels, box = noise(2, 40_000), (31_234.567891, 0, 39_876.543219, 2)
    expected = np.asarray(Image.fromarray(pixels).resize((900, 2), Image.Resampling.BILINEAR, box))
    assert np.array_equal(resize_with_kernel(pixels, box, (2, 900), "bilinear"), expected)


def resize_in_whole_numbers(pixels, box, size, resampling):
    """The definition: weighted sums along x, rounded and clipped to bytes, then along y."""
    left, top, right, bottom = box
    columns = resampling_axis(pixels.shape[1], left, right, size[1], resampling)
    rows = resampling_axis(pixels.shape[0], top, bottom, size[0], resampling)

    def along_first(values, axis):
        windows = values[axis.first[:, None] + np.arange(axis.weights.shape[1])].astype(np.int64)
        sums = (windows * axis.weights[:, :, None, None]).sum(axis=1)
        return np.clip((sums + 2**21) >> 22, 0, 255)

    between = along_first(pixels.swapaxes(0, 1), columns).swapaxes(0, 1)
    return along_first(between, rows).astype(np.uint8)


@needs_kernels
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (7, 30), (64, 64), (90, 5)])
def test_every_instruction_set_sums_the_same_whole_numbers(resampling, size):
    pixels, box = noise(50, 75), (3.3, 0.25, 74.9, 41.0)
    expected = resize_in_whole_numbers(pixels, box, size, resampling)
    assert np.array_equal(resize_with_kernel(pixels, box, size, resampling), expected)


@needs_kernels
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (200, 180), (1200, 1600)])
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set_gives_the_same_square(height, width):
    pixels = noise(height, width)
    scale = 256 / min(height, width)
    kind = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.BICUBIC
    whole = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), kind)
    left, top = (whole.width - 256) // 2, (whole.height - 256) // 2
    expected = np.asarray(whole.crop((left, top, left + 256, top + 256))).astype(int)
    # The square is resampled alone; its corner is kept in single precision.
    assert np.abs(to_square(pixels, 256) - expected).max() <= (1 if scale < 1 else 2)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), sides=st.tuples(*[st.integers(1, 60)] * 2), size=st.integers(1, 40), flip=st.booleans())
def test_a_crop_straight_from_the_image_is_that_of_its_square(data, sides, size, flip):
    pixels = noise(*sides)
    side = data.draw(st.integers(1, size))
    box = np.array([*data.draw(st.tuples(*[st.integers(0, size - side)] * 2)), side, side])
    expected, actual = np.empty((2, side, side, 3), np.uint8)
    cut_crop(to_square(pixels, size), box, flip, expected)
    cut_square_crop(pixels, size, box, flip, actual)
    assert np.array_equal(actual, expected)


def test_both_ways_give_the_same_crops(way):
    pixels, out = noise(90, 120), np.zeros((2, 40, 40, 3), np.uint8)
    cut_square_crop(pixels, 64, np.array([3, 20, 40, 40]), True, out[0])
    cut_square_crop(pixels, 64, np.array([3, 20, 17, 31]), False, out[1])
    square = Image.fromarray(to_square(pixels, 64))
    assert np.array_equal(out[0], np.asarray(square)[3:43, 20:60][:, ::-1])
    resized = square.crop((20, 3, 51, 20)).resize((40, 40), Image.Resampling.BILINEAR)
    assert np.array_equal(out[1], np.asarray(resized))


@pytest.mark.parametrize("width", [1, 4, 5, 6, 7, 10, 11, 16, 224])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_written_where_it_belongs_and_nowhere_else(way, width, flip):
    pixels = noise(30, 240)
    memory = np.full((7, width, 3), 77, np.uint8)
    cut_crop(pixels, np.array([4, 9, 5, width]), flip, memory[1:6])
    expected = pixels[4:9, 9 : 9 + width]
    assert np.array_equal(memory[1:6], expected[:, ::-1] if flip else expected)
    assert (memory[0] == 77).all() and (memory[6] == 77).all()


def test_images_of_a_larger_array_are_read_with_their_own_strides(way):
    pixels = noise(50, 80)[5:45, 11:70]
    out = np.empty((16, 16, 3), np.uint8)
    cut_square_crop(pixels, 20, np.array([1, 2, 16, 16]), False, out)
    assert np.array_equal(out, to_square(pixels.copy(), 20)[1:17, 2:18])


def test_an_extreme_image_is_resampled_by_pillow_alone(way):
    pixels = noise(2, 50_000)
    assert to_square(noise(3000, 9), 4).shape == (4, 4, 3) and to_square(pixels, 1).shape == (1, 1, 3)

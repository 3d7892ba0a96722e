"""The augmentation of paper 4.1 and of the 2012 code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.config import AugmentConfig
from alexnet.data.augment import draw_augmentation
from alexnet.data.resample import cut_crop
from alexnet.data.statistics import Statistics

# The constants of the 2014 release (paper.md 3.5).
STDEVS = np.array([121.7800610, 37.0938885, 19.7208330])
VECTORS = np.array(
    [
        [-0.56351045, -0.71257945, +0.41795513],
        [-0.57618440, -0.02354167, -0.81698062],
        [-0.59200296, +0.70119634, +0.39731118],
    ]
)
STATISTICS = Statistics(np.zeros((256, 256, 3), np.float32), np.zeros((3, 3)), STDEVS, VECTORS, 1)


def draw(config=None, *, step=0, seed=0, epoch=0.0, batch_size=128, image_size=256, crop_size=224):
    return draw_augmentation(
        config or AugmentConfig(),
        STATISTICS,
        seed=seed,
        step=step,
        epoch=epoch,
        batch_size=batch_size,
        image_size=image_size,
        crop_size=crop_size,
    )


def test_a_256_square_has_2178_views():
    plans = [draw(step=step, batch_size=1024) for step in range(40)]
    views = {
        (*box[:2].tolist(), bool(flip)) for plan in plans for box, flip in zip(plan.boxes, plan.flips, strict=True)
    }
    assert len(views) == 33 * 33 * 2  # 40,960 draws miss one of 2178 with probability 1.5e-5
    assert {box[0] for box in views} == set(range(33))


@given(crop_size=st.integers(1, 40), extra=st.integers(0, 20), step=st.integers(0, 10))
def test_crops_stay_inside_the_square(crop_size, extra, step):
    boxes = draw(step=step, image_size=crop_size + extra, crop_size=crop_size).boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= crop_size + extra).all()
    assert (boxes[:, 2:] == crop_size).all()


def test_thirty_two_consecutive_images_share_crop_and_flip_but_not_noise():
    plan = draw(AugmentConfig(crop_shared_by=32), batch_size=128)
    for start in range(0, 128, 32):
        assert (plan.boxes[start : start + 32] == plan.boxes[start]).all()
        assert (plan.flips[start : start + 32] == plan.flips[start]).all()
    assert len({tuple(box) for box in plan.boxes.tolist()}) == 4
    assert len(np.unique(plan.color_shift[:, 0])) == 128


def test_a_last_group_of_shared_crops_may_be_smaller():
    assert len(draw(AugmentConfig(crop_shared_by=32), batch_size=50).boxes) == 50


def test_without_augmentation_there_is_one_view():
    plan = draw(AugmentConfig(crop="center", flip=False, color_noise=0))
    assert (plan.boxes == [16, 16, 224, 224]).all()
    assert not plan.flips.any()
    assert plan.color_shift is None


def test_colour_noise_has_the_covariance_of_the_data():
    shifts = np.concatenate([draw(step=step, batch_size=4096).color_shift for step in range(25)]).astype(float)
    expected = 0.01 * VECTORS @ np.diag(STDEVS**2) @ VECTORS.T
    assert np.allclose(np.cov(shifts.T), expected, rtol=0.03, atol=0.3)
    assert np.allclose(np.sqrt(np.linalg.eigvalsh(np.cov(shifts.T))[::-1]), [12.18, 3.71, 1.97], rtol=0.02)
    assert np.abs(shifts.mean(axis=0)).max() < 0.15


def test_colour_noise_and_its_divisor_end_together():
    config = AugmentConfig(color_noise_until_epoch=67, color_noise_divisor=1.1)
    before, after = draw(config, epoch=66.99), draw(config, epoch=67.0)
    assert before.color_shift is not None and before.divisor == 1.1
    assert after.color_shift is None and after.divisor == 1.0


def test_without_noise_there_is_no_divisor():
    assert draw(AugmentConfig(color_noise=0, color_noise_divisor=1.1)).divisor == 1.0


def test_a_step_draws_the_same_whenever_it_is_asked():
    one, other = draw(step=5), draw(step=5)
    assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.flips, other.flips)
    assert np.array_equal(one.color_shift, other.color_shift)
    assert not np.array_equal(one.boxes, draw(step=6).boxes)
    assert not np.array_equal(one.boxes, draw(step=5, seed=1).boxes)


def test_flips_are_fair():
    flips = np.concatenate([draw(step=step, batch_size=1000).flips for step in range(20)])
    assert abs(flips.mean() - 0.5) < 0.02


def test_resized_crops_cover_8_to_100_percent_at_aspects_up_to_four_thirds():
    boxes = draw(AugmentConfig(crop="random_resized"), batch_size=5000).boxes
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 256).all()
    area = boxes[:, 2] * boxes[:, 3] / 256**2
    assert area.min() > 0.075 and area.max() <= 1 and area.min() < 0.1 and area.max() > 0.9
    aspect = boxes[:, 3] / boxes[:, 2]
    assert aspect.min() > 0.7 and aspect.max() < 1.4


@settings(max_examples=30)
@given(top=st.integers(0, 6), left=st.integers(0, 6), flip=st.booleans())
def test_a_crop_is_those_pixels(top, left, flip):
    square = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    out = np.empty((10, 10, 3), np.uint8)
    cut_crop(square, np.array([top, left, 10, 10]), flip, out)
    expected = square[top : top + 10, left : left + 10]
    assert np.array_equal(out, expected[:, ::-1] if flip else expected)
    if flip:
        unflipped = np.empty_like(out)
        cut_crop(square, np.array([top, left, 10, 10]), False, unflipped)
        assert np.array_equal(out[:, ::-1], unflipped)


@pytest.mark.parametrize("size", [7, 20])
def test_a_resized_crop_fills_the_output(size):
    square = np.full((32, 32, 3), 200, np.uint8)
    out = np.zeros((size, size, 3), np.uint8)
    cut_crop(square, np.array([3, 5, 11, 13]), False, out)
    assert (out == 200).all()

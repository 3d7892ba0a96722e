import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import UserError
from alexnet.evaluation.views import VIEW_NAMES, View, cut_views, view_crops, weighted_views


def test_ten_crop_takes_the_offsets_of_the_paper():
    views = view_crops("ten_crop", 256, 224)
    offsets = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert len(views) == 10
    assert {(v.top, v.left, v.flipped) for v in views} == {(*o, f) for o in offsets for f in (False, True)}


def test_center_and_flip_share_the_centre_crop():
    assert view_crops("center", 256, 224) == [View(16, 16, False)]
    assert view_crops("flip", 256, 224) == [View(16, 16, False), View(16, 16, True)]


@given(st.sampled_from(VIEW_NAMES), st.integers(1, 300), st.integers(0, 60))
def test_crops_stay_inside_and_their_weights_sum_to_one(views, crop_size, border):
    crops = view_crops(views, crop_size + border, crop_size)
    assert all(0 <= v.top <= border and 0 <= v.left <= border for v in crops)
    weighted = weighted_views(crops)
    assert len({view for view, _ in weighted}) == len(weighted)
    assert sum(weight for _, weight in weighted) == pytest.approx(1)


def test_equal_views_are_computed_once_with_the_same_weight():
    assert weighted_views(view_crops("ten_crop", 24, 24)) == [(View(0, 0, False), 0.5), (View(0, 0, True), 0.5)]
    # With a border of one pixel the centre crop is the first corner, which then counts twice.
    weights = dict(weighted_views(view_crops("ten_crop", 25, 24)))
    assert weights[View(0, 0, False)] == 0.2 and weights[View(1, 1, True)] == 0.1


def test_a_crop_larger_than_the_image_names_both_sizes():
    with pytest.raises(UserError, match=r"224 pixels.*128 pixels.*data\.image_size"):
        view_crops("center", 128, 224)


def test_unknown_views_name_the_choices():
    with pytest.raises(UserError, match=r"'nine'.*center, flip, ten_crop"):
        view_crops("nine", 256, 224)


def test_views_are_cut_image_by_image_and_mirrored_left_to_right():
    squares = torch.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).to(torch.uint8)
    views = [View(0, 1, False), View(0, 1, True), View(2, 0, False)]
    crops, offsets, flips = cut_views(squares, views, 2)
    assert crops.shape == (6, 2, 2, 3) and crops.dtype == torch.uint8
    assert torch.equal(crops[0], squares[0, 0:2, 1:3])
    assert torch.equal(crops[1], squares[0, 0:2, [2, 1]])
    assert torch.equal(crops[5], squares[1, 2:4, 0:2])
    assert offsets.tolist() == [[0, 1], [0, 1], [2, 0]] * 2
    assert flips.tolist() == [False, True, False] * 2

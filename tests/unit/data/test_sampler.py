"""The order of images: every image once an epoch, and a function of the position alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alexnet.data.sampler import ImageOrder, ShardWindows, StagedOrder
from alexnet.runtime.randomness import random_stream


@given(num_images=st.integers(1, 300), batch_size=st.integers(1, 100), seed=st.integers(0, 1000))
def test_every_epoch_of_the_stream_has_every_image_once(num_images, batch_size, seed):
    order = ImageOrder(num_images, "each_epoch", seed)
    num_batches = -(-3 * num_images // batch_size)
    stream = np.concatenate([order.indices(t * batch_size, batch_size) for t in range(num_batches)])
    assert len(stream) == num_batches * batch_size
    for epoch in range(3):
        seen = stream[epoch * num_images : (epoch + 1) * num_images]
        assert sorted(seen) == list(range(num_images))


@given(start=st.integers(0, 2000), count=st.integers(0, 300))
def test_a_batch_depends_on_its_position_alone(start, count):
    fresh, used = ImageOrder(97, "each_epoch", 5), ImageOrder(97, "each_epoch", 5)
    for position in range(0, start, 211):
        used.indices(position, 64)
    assert np.array_equal(fresh.indices(start, count), used.indices(start, count))


def test_epochs_and_seeds_have_different_orders():
    order = ImageOrder(1000, "each_epoch", 0)
    first, second = order.indices(0, 1000), order.indices(1000, 1000)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, ImageOrder(1000, "each_epoch", 1).indices(0, 1000))


def test_once_repeats_its_shuffled_order_and_never_keeps_the_data_sets():
    once = ImageOrder(1000, "once", 0)
    assert np.array_equal(once.indices(0, 1000), once.indices(1000, 1000))
    assert not np.array_equal(once.indices(0, 1000), np.arange(1000))
    assert np.array_equal(ImageOrder(10, "never", 0).indices(5, 10), [5, 6, 7, 8, 9, 0, 1, 2, 3, 4])


def test_a_batch_larger_than_the_data_set_goes_round():
    indices = ImageOrder(3, "never", 0).indices(0, 8)
    assert indices.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@given(start=st.integers(0, 300), count=st.integers(0, 200))
def test_a_staged_order_is_one_and_then_the_other(start, count):
    staged = StagedOrder(ImageOrder(40, "each_epoch", 3), 100, ImageOrder(50, "each_epoch", 3))
    first, then = ImageOrder(40, "each_epoch", 3), ImageOrder(50, "each_epoch", 3)
    expected = np.concatenate([first.indices(0, 100), then.indices(0, 400)])[start : start + count]
    assert np.array_equal(staged.indices(start, count), expected)


def test_a_staged_order_announces_the_shards_of_its_stage():
    first, then = (ImageOrder(sum(sizes), "each_epoch", 1, windows=windows(sizes, 1)) for sizes in ([30], [30, 20]))
    staged = StagedOrder(first, 60, then)
    assert staged.shards_ahead(59) == [0]
    assert sorted(staged.shards_ahead(60)) == [0, 1]


def windows(sizes, window):
    return ShardWindows(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes), window)


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any),
    window=st.integers(1, 5),
    batch_size=st.integers(1, 30),
    shuffle=st.sampled_from(["each_epoch", "once", "never"]),
)
def test_windows_too_give_every_image_once_an_epoch(sizes, window, batch_size, shuffle):
    num_images = sum(sizes)
    order = ImageOrder(num_images, shuffle, 3, windows=windows(sizes, window))
    num_batches = -(-2 * num_images // batch_size)
    stream = np.concatenate([order.indices(t * batch_size, batch_size) for t in range(num_batches)])
    for epoch in range(2):
        assert sorted(stream[epoch * num_images : (epoch + 1) * num_images]) == list(range(num_images))


@given(start=st.integers(0, 500), count=st.integers(1, 200))
def test_windows_depend_on_the_position_alone(start, count):
    used = ImageOrder(101, "each_epoch", 5, windows=windows([30, 30, 30, 11], 2))
    for position in range(0, start, 37):
        used.indices(position, 20)
    fresh = ImageOrder(101, "each_epoch", 5, windows=windows([30, 30, 30, 11], 2))
    assert np.array_equal(fresh.indices(start, count), used.indices(start, count))


def test_only_the_shards_of_a_window_and_of_the_next_are_needed():
    sizes, batch = [40] * 10, 8
    shard_of = np.repeat(np.arange(10), sizes)
    order = ImageOrder(400, "each_epoch", 1, windows=windows(sizes, 3))
    for position in range(0, 1200, batch):
        announced = order.shards_ahead(position)
        assert set(shard_of[order.indices(position, batch)]) <= set(announced) and len(announced) <= 6
        # The first of them are those of the position's own window: they are the urgent ones.
        assert shard_of[order.indices(position, 1)[0]] in announced[:3]
    assert ImageOrder(400, "each_epoch", 1).shards_ahead(0) is None


def test_windows_mix_the_images_of_their_shards():
    order = ImageOrder(400, "each_epoch", 1, windows=windows([40] * 10, 5))
    shard_of = np.repeat(np.arange(10), 40)
    first = shard_of[order.indices(0, 200)]
    assert len(set(first)) == 5 and len(set(first[:40])) == 5
    other = shard_of[order.indices(400, 200)]
    assert set(first) != set(other)
    assert not np.array_equal(order.indices(0, 400), order.indices(400, 400))


def test_the_images_of_a_window_come_in_another_order_each_epoch():
    order = ImageOrder(50, "each_epoch", 1, windows=windows([50], 1))
    assert not np.array_equal(order.indices(0, 50), order.indices(50, 50))


def test_the_order_is_that_of_a_permutation_of_int64():
    expected = random_stream(4, "order", 2).permutation(1000)
    indices = ImageOrder(1000, "each_epoch", 4).indices(2000, 1000)
    assert indices.dtype == np.int64 and np.array_equal(indices, expected)

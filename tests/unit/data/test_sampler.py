"""The order of images: every image once an epoch, and a function of the position alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alexnet.data.sampler import ImageOrder


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

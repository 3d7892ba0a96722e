"""Batches follow from (seed, step), whatever reads them."""

import sys
import threading
import time
from itertools import chain

import numpy as np
import pytest
import simplejpeg
import torch

from alexnet.config import AugmentConfig
from alexnet.data.decode import decode_image
from alexnet.data.loader import TrainingLoader
from alexnet.data.resample import to_square
from alexnet.data.sampler import ImageOrder, ShardWindows
from alexnet.data.splits import Storage
from alexnet.data.squares import ImageSet
from alexnet.data.statistics import compute_statistics
from alexnet.errors import RunError
from alexnet.runtime.distributed import World

SQUARES = np.random.default_rng(0).integers(0, 256, (37, 20, 20, 3), dtype=np.uint8)
LABELS = np.arange(37) % 5


def image_set(in_memory=True, read=None):
    keys = [f"image {i}" for i in range(37)]
    if in_memory:
        return ImageSet(LABELS, keys, 20, array=SQUARES)
    return ImageSet(LABELS, keys, 20, read=read or (lambda index: SQUARES[index]))


def loader(num_workers=0, images=None, seed=0, rows=None, **augment):
    images = images or image_set()
    return TrainingLoader(
        images,
        compute_statistics(image_set()),
        AugmentConfig(**augment),
        order=ImageOrder(len(images), "each_epoch", seed),
        batch_size=8,
        crop_size=16,
        num_workers=num_workers,
        rows=rows,
    )


def contents(batches):
    return [
        (batch.step, batch.indices.tolist(), batch.labels, batch.crops, batch.offsets, batch.flips, batch.color_shift)
        for batch in batches
    ]


def same(a, b):
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("num_workers", [1, 4, 16])
@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_do_not_depend_on_the_number_of_workers(num_workers, in_memory):
    expected = contents(loader(0).batches(0, 12))
    got = contents(loader(num_workers, image_set(in_memory)).batches(0, 12))
    assert len(got) == 12 and all(same(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("crop", ["random", "random_resized"])
def test_processes_share_the_batches_of_one(size, crop):
    # crop_shared_by=3 does not divide a part of the batch: what is shared is still drawn for the whole of it.
    whole = contents(loader(crop=crop, crop_shared_by=3).batches(3, 7))
    worlds = [World(rank=rank, size=size) for rank in range(size)]
    parts = [contents(loader(2, rows=world.share(8), crop=crop, crop_shared_by=3).batches(3, 7)) for world in worlds]
    for number, (step, *columns) in enumerate(whole):
        assert [part[number][0] for part in parts] == [step] * size
        for column, values in enumerate(columns, start=1):
            shares = [part[number][column] for part in parts]
            if values is None:
                assert shares == [None] * size
            else:
                together = list(chain(*shares)) if isinstance(values, list) else torch.cat(shares)
                assert same([together], [values])


def test_a_loader_that_starts_in_the_middle_continues_the_same_sequence():
    whole = contents(loader(2).batches(0, 12))
    assert all(same(a, b) for a, b in zip(whole[7:], contents(loader(1).batches(7, 12)), strict=True))


def test_a_batch_holds_the_crops_it_says():
    batch = loader(color_noise=0).make_batch(3)
    for row, index in enumerate(batch.indices):
        top, left = batch.offsets[row].tolist()
        expected = SQUARES[index, top : top + 16, left : left + 16]
        expected = expected[:, ::-1] if batch.flips[row] else expected
        assert np.array_equal(batch.crops[row].numpy(), expected)
        assert batch.labels[row] == LABELS[index]


def test_seeds_give_other_batches():
    assert not np.array_equal(loader(seed=0).make_batch(0).indices, loader(seed=1).make_batch(0).indices)


def test_resized_crops_have_no_place_in_the_mean_image():
    batch = loader(crop="random_resized").make_batch(0)
    assert batch.offsets is None and batch.crops.shape == (8, 16, 16, 3)


def test_an_error_in_a_reading_thread_reaches_the_training_thread():
    def read(index):
        raise RunError(f"image {index} is gone")

    with pytest.raises(RunError, match="is gone"):
        list(loader(2, image_set(False, read)).batches(0, 3))


def test_leaving_early_ends_the_reading_threads():
    batches = loader(3).batches(0, 100)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("alexnet-loader")]


def test_reading_ahead_is_bounded():
    reads = []

    def read(index):
        reads.append(index)
        return SQUARES[index]

    batches = loader(2, image_set(False, read)).batches(0, 100)
    next(batches)
    batches.close()
    assert len(reads) <= 8 * 4  # the batch that was taken and three ahead of it


def test_one_batch_is_made_by_all_threads():
    together = threading.Barrier(4, timeout=20)

    def read(index):
        together.wait()  # passes only while four threads are reading
        return SQUARES[index]

    batches = loader(4, image_set(False, read)).batches(0, 1)
    assert len(list(batches)) == 1


def test_batches_that_are_kept_stay_as_they_are():
    batches = list(loader(2, image_set(False)).batches(0, 9))
    assert all(same(a, b) for a, b in zip(contents(loader(0).batches(0, 9)), contents(batches), strict=True))


def test_crops_of_larger_images_are_those_of_their_squares():
    pixels = np.random.default_rng(1).integers(0, 256, (37, 33, 47, 3), dtype=np.uint8)
    squares = ImageSet(LABELS, image_set().keys, 20, array=np.stack([to_square(image, 20) for image in pixels]))
    for crop in ("random", "random_resized"):
        expected = loader(images=squares, crop=crop).make_batch(1)
        got = loader(images=image_set(False, lambda index: pixels[index]), crop=crop).make_batch(1)
        assert torch.equal(got.crops, expected.crops)


def test_shards_are_announced_by_the_earliest_batch_that_is_not_finished():
    shards, announced, finished = np.arange(37, dtype=np.int32) // 8, [], []
    storage = Storage(shards=shards, expect=lambda numbers: announced.append((len(finished), list(numbers))))
    images = ImageSet(LABELS, image_set().keys, 20, read=lambda index: SQUARES[index], storage=storage)
    for num_workers in (0, 2):
        announced.clear()
        finished.clear()
        windowed = loader(num_workers, images)
        windowed.order = ImageOrder(37, "each_epoch", 0, windows=ShardWindows(shards, 2))
        for batch in windowed.batches(0, 9):
            assert set(shards[batch.indices]) <= set(announced[-1][1])
            finished.append(batch.step)
        moments = [step for step, _ in announced]
        # Three windows an epoch, and the last batch begins in the fifth: each is announced once.
        assert moments == sorted(set(moments)) and len(moments) == 5
        for step, numbers in announced:
            assert numbers == windowed.order.shards_ahead(step * 8)


def test_decoding_lets_other_threads_run():
    # A thread that is never asked to give the interpreter up runs on until it does so of itself.
    data = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), dtype=np.uint8))
    counted, decoding = [], threading.Event()

    def count():
        decoding.wait()
        while decoding.is_set():
            counted.append(time.perf_counter())
            time.sleep(0)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread = threading.Thread(target=count)
        thread.start()
        decoding.set()
        started = time.perf_counter()
        decode_image(data)
        stopped = time.perf_counter()
        decoding.clear()
        thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len([moment for moment in counted if started < moment < stopped]) > 100

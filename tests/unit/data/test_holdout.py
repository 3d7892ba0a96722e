"""Which images are held out follows from their content and the seed, and from nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.holdout import hash_files, hold_out


def contents_of(ids: list[int]) -> list[bytes]:
    return [hashlib.sha256(str(i).encode()).digest() for i in ids]


images = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=80)


@settings(max_examples=200, deadline=None)
@given(images=images, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 3))
def test_copies_stay_together_and_every_class_trains(images, fraction, seed):
    ids, labels = [list(column) for column in zip(*images, strict=True)]
    held_out = hold_out(contents_of(ids), np.array(labels, np.int64), fraction, seed)
    for image in set(ids):
        assert len({bool(side) for i, side in zip(ids, held_out, strict=True) if i == image}) == 1
    for label in set(labels):
        members = {i: bool(side) for i, side, owner in zip(ids, held_out, labels, strict=True) if owner == label}
        assert not all(members.values()), "a class must keep an image to train on"


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), fraction=st.floats(0.01, 0.99))
def test_each_class_gives_its_rounded_share(sizes, fraction):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    held_out = hold_out(contents_of(list(range(len(labels)))), labels, fraction, 0)
    for label, size in enumerate(sizes):
        expected = min(max(1, round(fraction * size)), size - 1)
        assert held_out[labels == label].sum() == expected


@settings(max_examples=50, deadline=None)
@given(images=images, seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(images, seed, order):
    def side(rows):
        ids, labels = [list(column) for column in zip(*rows, strict=True)]
        held_out = hold_out(contents_of(ids), np.array(labels, np.int64), 0.3, seed)
        return {row: bool(value) for row, value in zip(rows, held_out, strict=True)}

    shuffled = list(images)
    order.shuffle(shuffled)
    assert side(images) == side(shuffled)


def test_seeds_hold_out_different_images_and_one_more_image_moves_few():
    labels = np.zeros(200, np.int64)
    first = hold_out(contents_of(list(range(200))), labels, 0.2, 0)
    assert first.sum() == 40
    assert (first != hold_out(contents_of(list(range(200))), labels, 0.2, 1)).sum() > 20
    grown = hold_out(contents_of(list(range(201))), np.zeros(201, np.int64), 0.2, 0)
    assert (first != grown[:200]).sum() <= 2


def test_two_classes_with_the_same_two_images_still_get_one_on_each_side():
    held_out = hold_out(contents_of([1, 2, 1, 2]), np.array([0, 0, 1, 1]), 0.1, 0)
    assert held_out[:2].sum() == 1 and held_out[:2].tolist() == held_out[2:].tolist()


def test_images_in_several_classes_are_trained_on_where_others_can_be_held_out():
    for seed in range(10):
        held_out = hold_out(contents_of([1, 2, 3, 1, 4, 5]), np.array([0, 0, 0, 1, 1, 1]), 0.5, seed)
        assert not held_out[0] and not held_out[3]
        assert held_out[:3].sum() == held_out[3:].sum() == 2


def test_files_are_hashed_alike_with_and_without_threads(tmp_path):
    paths = [tmp_path / f"{i}.bin" for i in range(150)]
    for i, path in enumerate(paths[:-1]):
        path.write_bytes(bytes([i // 2]) * 1000)
    hashes = hash_files(paths, 0)
    assert hashes == hash_files(paths, 3)
    assert hashes[0] == hashes[1] == hashlib.sha256(b"\x00" * 1000).digest() and hashes[1] != hashes[2]
    assert hashes[-1] not in hashes[:-1], "a missing file has a hash of its own"

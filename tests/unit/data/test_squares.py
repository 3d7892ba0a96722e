"""Squares and image sets: the same pixels, labels and skipped images however they are loaded."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.data import squares
from alexnet.data.decode import UnreadableImage
from alexnet.data.splits import Split
from alexnet.data.squares import Skipped, load_images, to_square
from alexnet.errors import RunError, UserError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def split_with_failures(
    num_images: int = 100, broken: tuple[int, ...] = (3, 40, 41, 99), num_classes: int = 5
) -> Split:
    def read(i: int) -> np.ndarray:
        if i in broken:
            raise UnreadableImage(f"reason {i}")
        return noise(10 + i % 7, 12 + i % 5, seed=i)

    labels = np.arange(num_images, dtype=np.int64) % num_classes
    return Split("train", labels, [f"image {i}" for i in range(num_images)], read)


def load(split: Split, size: int = 8, **options):
    defaults = {"num_workers": 0, "max_unreadable": 0.5, "memory_limit_bytes": 10**9}
    return load_images(split, size, **(defaults | options))


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.integers(1, 40), seed=st.integers(0, 5))
def test_to_square_is_resizing_the_shorter_side_then_cropping_the_centre(height, width, size, seed):
    # Middle greys: where bicubic overshoots, Pillow clips between passes, whose order depends on the part asked for.
    pixels = 96 + noise(height, width, seed) // 4
    short = min(height, width)
    new_height, new_width = (max(size, round(side * size / short)) for side in (height, width))
    resample = Image.Resampling.BILINEAR if short > size else Image.Resampling.BICUBIC
    whole = Image.fromarray(pixels)
    if (new_width, new_height) != (width, height):
        whole = whole.resize((new_width, new_height), resample)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    expected = np.array(whole.crop((left, top, left + size, top + size)))
    actual = to_square(pixels, size)
    assert actual.shape == (size, size, 3) and actual.dtype == np.uint8
    # Pillow keeps the part's corner in single precision and rounds after each of its two passes. Where the first pass
    # rounds the other way, bicubic weights (absolute sum up to 1.5) can carry its 1 to 2 levels.
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max() <= (1 if short > size else 2)
    assert np.mean(difference > 1) <= 0.01


def test_an_image_of_the_right_size_is_not_touched():
    pixels = noise(16, 16)
    assert np.shares_memory(to_square(pixels, 16), pixels)
    wide = noise(16, 21)
    assert np.array_equal(to_square(wide, 16), wide[:, 2:18])


def test_shrinking_averages_over_all_pixels():
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    assert np.abs(to_square(board, 8).astype(int) - 128).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 1000), (1000, 1), (1, 50_000), (2, 3)])
def test_tiny_and_extreme_images_work(height, width):
    pixels = np.full((height, width, 3), (10, 20, 30), np.uint8)
    assert np.array_equal(to_square(pixels, 256), np.full((256, 256, 3), (10, 20, 30), np.uint8))


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("memory_limit_bytes", [0, 10**9, None])
def test_sets_do_not_depend_on_workers_or_memory(num_workers, memory_limit_bytes):
    split = split_with_failures()
    images = load(split, num_workers=num_workers, memory_limit_bytes=memory_limit_bytes)
    kept = [i for i in range(100) if i not in (3, 40, 41, 99)]
    assert (images.array is None) == (memory_limit_bytes == 0)
    assert images.skipped == [Skipped(f"image {i}", f"reason {i}") for i in (3, 40, 41, 99)]
    assert len(images) == 96 and images.labels.tolist() == [i % 5 for i in kept]
    assert list(images.keys) == [f"image {i}" for i in kept]
    for position, i in enumerate(kept):
        assert np.array_equal(images.square(position), to_square(split.read(i), 8))


def test_memory_limit_is_counted_in_bytes_of_squares():
    split = split_with_failures(10, broken=())
    assert load(split, memory_limit_bytes=10 * 8 * 8 * 3).array is not None
    assert load(split, memory_limit_bytes=10 * 8 * 8 * 3 - 1).array is None
    assert squares.free_memory_bytes() > 10**6


def test_a_containers_limit_holds_and_its_cached_files_are_free(tmp_path, monkeypatch):
    monkeypatch.setattr(squares, "_CONTAINER", tmp_path)
    monkeypatch.setattr(squares, "_OWN_GROUPS", tmp_path / "none")
    (tmp_path / "memory.max").write_text("9000000\n")
    (tmp_path / "memory.current").write_text("8000000\n")
    (tmp_path / "memory.stat").write_text("anon 2000000\nfile 6000000\ninactive_file 5000000\n")
    assert squares.free_memory_bytes() == 6_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert squares.free_memory_bytes() > 6_000_000


def group(folder, limit, used, cached, names=("memory.max", "memory.current", "inactive_file")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 2000000\n{names[2]} {cached}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/user.slice/job.scope/step\n", 4_000_000),
        ("0::/user.slice/job.scope\n", 4_000_000),
        ("0::/user.slice\n", 7_000_000),
        ("0::/\n", 9_000_000),
        ("0::/../elsewhere\n", 9_000_000),
        ("12:cpu:/other\n7:memory:/docker/abc\n0::/user.slice\n", 3_000_000),
        ("7:hugetlb,memory:/not/seen/from/here\n", 8_000_000),
    ],
)
def test_the_tightest_limit_on_the_way_to_the_root_holds(text, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(squares, "_CONTAINER", tmp_path / "cgroup")
    monkeypatch.setattr(squares, "_OWN_GROUPS", tmp_path / "self")
    (tmp_path / "self").write_text(text)
    root = tmp_path / "cgroup"
    group(root, 10_000_000, 1_000_000, 0)
    group(root / "user.slice", 10_000_000, 5_000_000, 2_000_000)
    group(root / "user.slice" / "job.scope", 6_000_000, 3_000_000, 1_000_000)
    group(root / "user.slice" / "job.scope" / "step", "max", 3_000_000, 1_000_000)
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    group(root / "memory", 2**63 - 4096, 9_000_000, 0, old)
    group(root / "memory" / "docker" / "abc", 5_000_000, 4_000_000, 2_000_000, old)
    if "not" in text:
        group(root / "memory", 9_000_000, 1_000_000, 0, old)
    assert squares.free_memory_bytes() == expected


@pytest.mark.parametrize("num_workers", [0, 3])
def test_every_image_is_decoded_once_and_progress_comes_in_order_in_this_thread(num_workers):
    counts = np.zeros(100, int)
    lock = threading.Lock()
    inner = split_with_failures()

    def read(i: int) -> np.ndarray:
        with lock:
            counts[i] += 1
        return inner.read(i)

    calls: list[tuple[int, int]] = []
    threads = set()

    def on_progress(done: int, total: int) -> None:
        calls.append((done, total))
        threads.add(threading.current_thread())

    load(Split("train", inner.labels, inner.keys, read), num_workers=num_workers, on_progress=on_progress)
    assert (counts == 1).all()
    assert calls == sorted(calls) and calls[-1] == (100, 100) and len(calls) > 3
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_too_many_unreadable_images_name_the_first_five(num_workers):
    split = split_with_failures(broken=tuple(range(1, 100, 2)))
    with pytest.raises(UserError) as caught:
        load(split, num_workers=num_workers, max_unreadable=0.06)
    message = str(caught.value)
    assert "image 1 (reason 1); image 3 (reason 3)" in message and "image 9 (reason 9); and 3 more" in message
    assert "image 11" not in message and "data.max_unreadable" in message and "100 in all" in message


def test_the_allowed_share_is_inclusive():
    split = split_with_failures(100, broken=(1, 2))
    assert len(load(split, max_unreadable=0.02)) == 98
    with pytest.raises(UserError, match="2 of the first"):
        load(split, max_unreadable=0.019)


def test_no_images_and_no_readable_images_are_user_errors():
    with pytest.raises(UserError, match="has no images"):
        load(split_with_failures(0, broken=()))
    with pytest.raises(UserError, match=r"None of the 4 images .* image 0 \(reason 0\)"):
        load(split_with_failures(4, broken=(0, 1, 2, 3)), max_unreadable=1.0)


def test_a_class_without_readable_images_is_noted():
    split = split_with_failures(10, broken=(1, 6))
    assert load(split).notes == ["No image of class number 1 in the train split can be read."]
    named = Split("val", split.labels, split.keys, split.read, classes=("a", "b", "c", "d", "e"))
    assert load(named).notes == ["No image of class b in the val split can be read."]


def test_an_array_of_the_right_size_is_used_as_it_is():
    array = np.stack([noise(8, 8, i) for i in range(20)])
    split = Split("train", np.zeros(20, np.int64), [str(i) for i in range(20)], array.__getitem__, array)
    calls = []
    images = load(split, on_progress=lambda *call: calls.append(call))
    assert images.array is array and calls == [(20, 20)]
    smaller = load(split, size=4)
    assert np.array_equal(smaller.square(7), to_square(array[7], 4))


def test_known_skipped_images_are_left_out_without_decoding_the_others():
    def read(i: int) -> np.ndarray:
        reads.append(i)
        return noise(8, 8, i)

    reads: list[int] = []
    split = Split("train", np.arange(6, dtype=np.int64) % 2, [f"k{i}" for i in range(6)], read)
    images = load(split, memory_limit_bytes=0, known_skipped={"k2": "was broken"})
    assert reads == [] and images.skipped == [Skipped("k2", "was broken")]
    assert list(images.keys) == ["k0", "k1", "k3", "k4", "k5"] and images.labels.tolist() == [0, 1, 1, 0, 1]
    assert np.array_equal(images.square(2), noise(8, 8, 3))

    reads.clear()
    held = load(split, known_skipped=["k2"])
    assert 2 not in reads and list(held.keys) == list(images.keys)
    assert all(np.array_equal(held.square(i), images.square(i)) for i in range(5))
    array = np.stack([noise(8, 8, i) for i in range(6)])
    in_array = load(Split("train", split.labels, split.keys, array.__getitem__, array), known_skipped=["k2"])
    assert list(in_array.keys) == list(images.keys) and np.array_equal(in_array.square(4), array[5])
    assert np.array_equal(array, np.stack([noise(8, 8, i) for i in range(6)])), "the source's own array is not changed"


@pytest.mark.parametrize("memory_limit_bytes", [0, 10**9])
def test_an_image_that_fails_later_is_a_run_error_that_names_it(memory_limit_bytes):
    split = split_with_failures(20, broken=(4, 9))
    with pytest.raises(RunError, match=r"image 9 .*reason 9"):
        images = load(split, memory_limit_bytes=memory_limit_bytes, known_skipped=["image 4"])
        for i in range(len(images)):
            images.square(i)


def test_another_exception_of_a_reader_comes_through():
    def read(i: int) -> np.ndarray:
        raise ZeroDivisionError

    split = Split("train", np.zeros(50, np.int64), [str(i) for i in range(50)], read)
    with pytest.raises(ZeroDivisionError):
        load(split, num_workers=2)
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("alexnet-data") and thread.is_alive()
    ]

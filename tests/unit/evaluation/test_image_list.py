import numpy as np
import pytest
from PIL import Image

from alexnet.config import DataConfig
from alexnet.errors import UserError
from alexnet.evaluation.image_list import UNKNOWN, open_images, stream_squares


def save(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 30), color).save(path)


@pytest.fixture
def tree(tmp_path):
    """train/ and val/ with the classes cat and dog."""
    for split, count in (("train", 3), ("val", 1)):
        for position, name in enumerate(("cat", "dog")):
            for number in range(count):
                save(
                    tmp_path / "pets" / split / name / f"{number}.png",
                    (10 * position + number, 200 if split == "val" else 0, 0),
                )
    return tmp_path / "pets"


def test_a_data_set_has_splits_and_classes(tree):
    images = open_images(str(tree))
    assert len(images) == 8 and images.classes == ("cat", "dog")
    assert list(images.splits) == ["train"] * 6 + ["val"] * 2
    assert images.keys[0] == "train/cat/0.png" and images.keys[7] == "val/dog/0.png"
    assert images.keys[5:7] == ["train/dog/2.png", "val/cat/0.png"]
    assert [images.class_name(i) for i in (0, 3, 6, 7)] == ["cat", "dog", "cat", "dog"]
    assert images.read(7)[0, 0].tolist() == [10, 200, 0]
    assert images.given == (str(tree),)
    chosen = images.take([7, 0])
    assert [chosen.class_name(0), chosen.keys[1], chosen.splits[0]] == ["dog", "train/cat/0.png", "val"]
    assert chosen.read(0)[0, 0].tolist() == [10, 200, 0]
    for split, count in (("train", 6), ("val", 2), ("all", 8)):
        assert len(open_images(tree, split=split)) == count


def test_built_in_sets_and_kinds_are_data_sets(tree):
    assert set(open_images("shapes:32", split="val").splits) == {"val"}
    assert len(open_images(f"folder:{tree}")) == 8
    assert open_images(f"folder:{tree}").given == (f"folder:{tree.resolve()}",)


def test_a_split_follows_the_config(tmp_path):
    for name in ("cat", "dog"):
        for number in range(10):
            save(tmp_path / name / f"{number}.png", (number, len(name) + ord(name[0]), 0))
    images = open_images(tmp_path, DataConfig(val_fraction=0.3))
    assert list(images.splits).count("val") == 6


def test_images_without_classes(tree, tmp_path):
    save(tmp_path / "loose" / "a.png", "red")
    save(tmp_path / "loose" / "inner" / "b.png", "blue")
    images = open_images([tmp_path / "loose", np.zeros((5, 5, 3), np.uint8)])
    assert [key.rpartition("/")[2] for key in images.keys] == ["a.png", "b.png", "array 1"]
    assert images.labels.tolist() == [UNKNOWN] * 3 and images.class_name(0) is None
    assert images.given is None  # an array cannot be opened again
    only_one = open_images(tree / "train" / "cat")
    assert (
        len(only_one) == 3 and only_one.classes == () and only_one.given == (str((tree / "train" / "cat").resolve()),)
    )
    # Two data sets are not one: their images are.
    assert len(open_images([str(tree), str(tree)])) == 16


def test_what_makes_no_sense_is_refused(tree, tmp_path):
    save(tmp_path / "one" / "a.png", "red")
    with pytest.raises(UserError, match="the split is one of train, val, all, not 'test'"):
        open_images(str(tree), split="test")
    with pytest.raises(UserError, match="--split val needs a data set; single images have no split"):
        open_images(str(tmp_path / "one"), split="val")
    with pytest.raises(UserError):
        open_images([])
    with pytest.raises(UserError, match=r"digit does not exist\. Give digits, shapes, a folder.* Did you mean digits"):
        open_images("digit")


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_squares_come_in_order_without_the_unreadable_ones(tmp_path, batch_size):
    for number in range(7):
        save(tmp_path / f"{number}.png", (number, 0, 0))
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "6.png").write_bytes(b"")
    skipped, seen = {}, []
    batches = list(
        stream_squares(
            open_images(tmp_path), 8, batch_size, num_workers=2, on_skip=skipped.__setitem__,
            on_progress=lambda done, total: seen.append((done, total)),
        )
    )  # fmt: skip
    indices = np.concatenate([batch.indices for batch in batches])
    assert indices.tolist() == [0, 1, 2, 4, 5]
    assert np.concatenate([batch.pixels.numpy() for batch in batches])[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert [key.rpartition("/")[2] for key in skipped] == ["3.png", "6.png"]
    assert skipped[str(tmp_path / "6.png")] == "the file is empty"
    assert seen[-1] == (7, 7) and seen == sorted(seen)


def test_where_nothing_can_be_read_that_is_said(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"None of the 2 images can be read; the first is .*a\.png \(not an image"):
        list(stream_squares(open_images(tmp_path), 8, 4))
    with pytest.raises(UserError, match=r"none\.png cannot be read: no such file or directory\."):
        list(stream_squares(open_images(str(tmp_path / "none.png")), 8, 4))

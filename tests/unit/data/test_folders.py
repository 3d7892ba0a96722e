"""Folders of class folders, as people really have them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.config import DataConfig
from alexnet.data.decode import UnreadableImage
from alexnet.data.folders import list_images, sort_classes
from alexnet.data.sources import open_source
from alexnet.data.splits import Source
from alexnet.errors import UserError

CONFIG = DataConfig()


def write_image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(path.suffix.lower(), path.suffix[1:].upper())
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (6, 7, 3), np.uint8)).save(path, format)
    return path


def write_classes(root: Path, *names: str, images: int = 10) -> Path:
    for name in names:
        for i in range(images):
            write_image(root / name / f"{i:03}.png", seed=hash_of(str(root), name, str(i)))
    return root


def hash_of(*parts: str) -> int:
    return sum(ord(letter) * 31**i for i, letter in enumerate("/".join(parts))) % 2**32


def keys(source: Source) -> tuple[list[str], list[str]]:
    assert source.train is not None
    return list(source.train.keys), list(source.val.keys)


def test_a_split_that_is_there_is_used(tmp_path):
    write_classes(tmp_path / "train", "dog", "cat", images=3)
    write_classes(tmp_path / "val", "dog", "cat", images=2)
    source = open_source(str(tmp_path), CONFIG)
    train, val = keys(source)
    assert source.classes == source.class_names == ("cat", "dog") and source.notes == ()
    assert train == [f"train/{name}/{i:03}.png" for name in ("cat", "dog") for i in range(3)]
    assert val == [f"val/{name}/{i:03}.png" for name in ("cat", "dog") for i in range(2)]
    assert source.train is not None and source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.array(Image.open(tmp_path / "train" / "dog" / "001.png"))
    assert np.array_equal(source.train.read(4), expected)


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test", "Val", "TEST", "testing"])
def test_names_of_validation_folders(tmp_path, name):
    write_classes(tmp_path / "Train", "a", "b")
    write_classes(tmp_path / name, "a", "b", images=1)
    assert keys(open_source(str(tmp_path), CONFIG))[1] == [f"{name}/a/000.png", f"{name}/b/000.png"]


def test_val_is_preferred_to_test(tmp_path):
    for part in ("train", "test", "val"):
        write_classes(tmp_path / part, "a", "b", images=2)
    assert keys(open_source(str(tmp_path), CONFIG))[1][0] == "val/a/000.png"


def test_a_lone_validation_folder_can_be_evaluated_on(tmp_path):
    write_classes(tmp_path / "val", "a", "b", images=2)
    source = open_source(str(tmp_path), CONFIG)
    assert source.train is None and len(source.val) == 4


def test_a_class_may_be_called_test(tmp_path):
    write_classes(tmp_path, "test", "toast")
    assert open_source(str(tmp_path), CONFIG).classes == ("test", "toast")


def test_a_flat_test_folder_is_not_a_validation_set(tmp_path):
    write_classes(tmp_path / "train", "a", "b")
    write_image(tmp_path / "test" / "1.png")
    source = open_source(str(tmp_path), CONFIG)
    assert len(source.val) == 2 and "has no class folders, so it is not used" in source.notes[0]


def test_a_folder_without_a_split_is_split_by_class_reproducibly(tmp_path):
    write_classes(tmp_path / "pets", "cat", "dog", images=30)
    first = open_source(str(tmp_path / "pets"), CONFIG)
    train, val = keys(first)
    assert len(val) == 6 and np.bincount(first.val.labels).tolist() == [3, 3]
    assert sorted(train + val) == [f"{name}/{i:03}.png" for name in ("cat", "dog") for i in range(30)]
    assert keys(open_source(str(tmp_path / "pets"), CONFIG)) == (train, val)
    assert len(open_source(str(tmp_path / "pets"), DataConfig(val_fraction=0.5)).val) == 30
    assert keys(open_source(str(tmp_path / "pets"), DataConfig(split_seed=1)))[1] != val
    (tmp_path / "pets" / "cat").rename(tmp_path / "pets" / "feline")
    (tmp_path / "pets" / "dog" / "000.png").rename(tmp_path / "pets" / "dog" / "zzz.png")
    renamed = [
        key.replace("feline", "cat").replace("zzz", "000")
        for key in keys(open_source(str(tmp_path / "pets"), CONFIG))[1]
    ]
    assert sorted(renamed) == sorted(val), "names do not enter the choice"


def test_a_train_folder_alone_is_split_likewise(tmp_path):
    write_classes(tmp_path / "train", "cat", "dog", images=20)
    train, val = keys(open_source(str(tmp_path), CONFIG))
    assert len(val) == 4 and len(train) == 36 and not set(train) & set(val)


def test_copies_fall_on_one_side_and_are_noted(tmp_path):
    write_classes(tmp_path, "cat", "dog", images=12)
    for i in range(12):
        content = (tmp_path / "cat" / f"{i:03}.png").read_bytes()
        (tmp_path / "cat" / f"copy of {i:03}.png").write_bytes(content)
    (tmp_path / "dog" / "a cat.png").write_bytes((tmp_path / "cat" / "000.png").read_bytes())
    for seed in range(5):
        source = open_source(str(tmp_path), DataConfig(val_fraction=0.4, split_seed=seed))
        sides = [{(tmp_path / key).read_bytes() for key in part} for part in keys(source)]
        assert not sides[0] & sides[1]
        assert source.notes == (
            "13 images are exact copies of others; all copies of one are on one side of the split.",
            "1 images lie in more than one class; no classifier can get these right.",
        )


def test_numbers_are_classes_in_the_order_of_the_numbers(tmp_path):
    write_classes(tmp_path, *(str(i) for i in (0, 1, 2, 10, 11)), images=2)
    source = open_source(str(tmp_path), CONFIG)
    assert source.classes == ("0", "1", "2", "10", "11") and "order of the numbers" in source.notes[0]
    assert sort_classes(["b", "10", "9"]) == (["10", "9", "b"], None)
    assert sort_classes(["00", "01", "10"]) == (["00", "01", "10"], None)


def test_files_are_found_at_any_depth_with_any_case_and_nothing_else(tmp_path):
    wanted = ["a.jpg", "b.JPEG", "c.Png", "d.BMP", "e.gif", "f.webp", "g.tif", "h.PPM", "deep/er/i.jpg", "x.jpg/j.png"]
    for i, name in enumerate(wanted):
        write_image(tmp_path / "cat" / name, seed=i)
    for name in ("notes.txt", "Thumbs.db", ".hidden.png", ".git/x.png", "model.pt", "noextension"):
        path = tmp_path / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    found = [path.relative_to(tmp_path / "cat").as_posix() for path in list_images(tmp_path / "cat")]
    assert sorted(found) == sorted(wanted)


def test_links_are_followed_and_loops_end(tmp_path):
    write_classes(tmp_path / "elsewhere", "real", images=3)
    write_classes(tmp_path / "data", "cat")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere" / "real")
    (tmp_path / "data" / "cat" / "loop").symlink_to(tmp_path / "data" / "cat")
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    source = open_source(str(tmp_path / "data"), CONFIG)
    assert source.classes == ("cat", "dog") and (source.train.labels == 1).sum() == 2  # type: ignore[union-attr]
    split = next(split for split in (source.train, source.val) if "cat/gone.png" in split.keys)  # type: ignore[union-attr]
    with pytest.raises(UnreadableImage, match="no such file"):
        split.read(list(split.keys).index("cat/gone.png"))


def test_a_name_that_is_not_utf8_can_be_printed_and_read(tmp_path):
    write_classes(tmp_path, "a", "b", images=2)
    strange = os.fsencode(tmp_path / "a") + b"/caf\xe9.png"
    try:
        os.rename(tmp_path / "a" / "000.png", strange)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    source = open_source(str(tmp_path), CONFIG)
    parts = [split for split in (source.train, source.val) if split is not None and "a/caf\\xe9.png" in split.keys]
    assert len(parts) == 1
    parts[0].read(list(parts[0].keys).index("a/caf\\xe9.png"))


def test_empty_class_folders_are_left_out_with_a_note(tmp_path):
    write_classes(tmp_path / "train", "a", "b")
    write_classes(tmp_path / "val", "a", "b", images=1)
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "val" / "empty").mkdir()
    source = open_source(str(tmp_path), CONFIG)
    assert source.classes == ("a", "b") and any("No images in empty of" in note for note in source.notes)
    write_image(tmp_path / "val" / "empty" / "1.png")
    with pytest.raises(UserError, match=r"has images of empty, of which .*train has none"):
        open_source(str(tmp_path), CONFIG)


def test_a_class_that_val_lacks_is_noted(tmp_path):
    write_classes(tmp_path / "train", "a", "b", "c")
    write_classes(tmp_path / "val", "a", "c", images=1)
    source = open_source(str(tmp_path), CONFIG)
    assert source.classes == ("a", "b", "c") and source.val.labels.tolist() == [0, 2]
    assert any("No validation images of b" in note for note in source.notes)


def test_a_class_with_one_image_is_trained_on_and_noted(tmp_path):
    write_classes(tmp_path, "many", images=5)
    write_classes(tmp_path, "single", images=1)
    source = open_source(str(tmp_path), CONFIG)
    assert "single/000.png" in keys(source)[0] and any("Too few distinct images of single" in n for n in source.notes)


def errors(tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path), CONFIG)
    return str(caught.value)


def test_messages_for_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is empty; it should hold a folder of images for each class" in errors(tmp_path / "empty")

    write_image(tmp_path / "flat" / "1.jpg")
    assert "images directly in it (1.jpg)" in errors(tmp_path / "flat")

    write_classes(tmp_path / "single", "cat")
    assert "one class only (cat)" in errors(tmp_path / "single")

    write_classes(tmp_path / "parent" / "pets", "cat", "dog")
    assert f"give {tmp_path / 'parent' / 'pets'}" in errors(tmp_path / "parent")

    (tmp_path / "bare" / "cat").mkdir(parents=True)
    (tmp_path / "bare" / "dog").mkdir()
    assert "The folders in" in errors(tmp_path / "bare") and "(cat, dog) hold no images" in errors(tmp_path / "bare")

    write_classes(tmp_path / "ones", "cat", "dog", images=1)
    assert "only one distinct image in each class" in errors(tmp_path / "ones")


def test_messages_for_splits_that_do_not_fit(tmp_path):
    write_classes(tmp_path / "flatval" / "train", "a", "b")
    write_image(tmp_path / "flatval" / "val" / "1.jpg")
    assert f"{tmp_path / 'flatval' / 'val'} has images directly in it" in errors(tmp_path / "flatval")

    write_classes(tmp_path / "emptyval" / "train", "a", "b")
    (tmp_path / "emptyval" / "val").mkdir()
    assert f"{tmp_path / 'emptyval' / 'val'} is empty" in errors(tmp_path / "emptyval")

    write_classes(tmp_path / "differ" / "train", "a", "b")
    write_classes(tmp_path / "differ" / "val", "1", "2", images=1)
    assert "have no class in common (a, b; 1, 2)" in errors(tmp_path / "differ")

    write_classes(tmp_path / "more" / "train", "a", "b")
    write_classes(tmp_path / "more" / "val", "a", "b", "c", "d", images=1)
    assert "has images of c, d, of which" in errors(tmp_path / "more")


def test_an_unreadable_folder_is_named(tmp_path):
    write_classes(tmp_path, "a", "b")
    (tmp_path / "a").chmod(0)
    try:
        if os.access(tmp_path / "a", os.R_OK):
            pytest.skip("this user may read everything")
        assert f"Cannot list the folder {tmp_path / 'a'}" in errors(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)


def test_classes_whose_names_are_not_utf8_are_text_and_stay_apart(tmp_path):
    root = os.fsencode(tmp_path / "data")
    for name in (b"caf\xe9", b"caf\xe8"):
        os.makedirs(os.path.join(root, name))
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(os.path.join(root, name, b"%d.png" % number))
    source = open_source(os.fsdecode(root), DataConfig())
    assert source.classes == source.class_names == (r"caf\xe8", r"caf\xe9")
    os.rename(os.path.join(root, b"caf\xe8"), os.path.join(root, rb"caf\xe9"))  # in ASCII
    with pytest.raises(UserError):
        open_source(os.fsdecode(root), DataConfig())

"""Tiny-ImageNet's original layout, whose validation labels are in a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.config import DataConfig
from alexnet.data.sources import open_source
from alexnet.data.squares import load_images
from alexnet.errors import UserError

CONFIG = DataConfig()
WNIDS = ("n03", "n01", "n02")


def write_image(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (level, 0, 0)).save(path, "JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    for level, wnid in enumerate(WNIDS):
        for i in range(3):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 60 * level)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    lines = []
    for i, wnid in enumerate(("n02", "n03", "n01", "n02")):
        write_image(folder / "val" / "images" / f"val_{i}.JPEG", 60 * WNIDS.index(wnid))
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(folder / "test" / "images" / "test_0.JPEG", 0)
    (folder / "wnids.txt").write_text("\n".join(WNIDS))
    (folder / "words.txt").write_text("n00\tentity\nn01\tcrane\nn02\tcrane, big bird\nn03\tegg, ovum\nn99\tother\n")
    return folder


def test_classes_are_sorted_and_validation_labels_come_from_the_list(root):
    source = open_source(str(root), CONFIG)
    assert (source.kind, source.name) == ("tiny_imagenet", "tiny")
    assert source.classes == ("n01", "n02", "n03") and source.class_names == ("crane", "crane, big bird", "egg")
    assert source.train is not None and source.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.train.keys[0] == "train/n01/images/n01_0.JPEG"
    assert list(source.val.keys) == [f"val/images/val_{i}.JPEG" for i in range(4)]
    assert source.val.labels.tolist() == [1, 2, 0, 1]
    for split in (source.train, source.val):
        for i, label in enumerate(split.labels):
            level = 60 * WNIDS.index(source.classes[label])
            assert abs(int(split.read(i)[..., 0].mean()) - level) <= 3


def test_without_words_the_classes_keep_their_wnids(root):
    (root / "words.txt").unlink()
    source = open_source(str(root), CONFIG)
    assert source.class_names == source.classes and "words.txt is missing" in source.notes[0]


def test_a_listed_image_that_is_missing_is_unreadable_and_named(root):
    (root / "val" / "images" / "val_2.JPEG").unlink()
    split = open_source(str(root), CONFIG).val
    images = load_images(split, 64, num_workers=0, max_unreadable=0.5, memory_limit_bytes=None)
    assert [(skipped.key, skipped.reason) for skipped in images.skipped] == [
        ("val/images/val_2.JPEG", "no such file or directory")
    ]
    assert images.notes == ["No image of class n01 in the val split can be read."]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_9.JPEG\tn77\t0\t0\t1\t1\n", r"Line 5 of .*val_annotations\.txt.*n77"),
        ("val_9.JPEG n01\n", "Line 5"),
        ("../../secret.png\tn01\n", "Line 5"),
        ("val_1.JPEG\tn01\n", r"lists val_1\.JPEG more than once"),
    ],
)
def test_a_bad_line_is_named(root, line, message):
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + line)
    with pytest.raises(UserError, match=message):
        open_source(str(root), CONFIG)


def test_missing_parts_are_named(root):
    (root / "wnids.txt").write_text("n01\nn02\nn04\n")
    with pytest.raises(UserError, match=r"train/n04 has no images, but wnids\.txt lists n04"):
        open_source(str(root), CONFIG)
    (root / "wnids.txt").write_text("n01\n")
    with pytest.raises(UserError, match="lists 1 classes"):
        open_source(str(root), CONFIG)
    (root / "wnids.txt").write_text("\n".join(WNIDS))
    (root / "val" / "val_annotations.txt").write_text("\n")
    with pytest.raises(UserError, match="lists no validation images"):
        open_source(str(root), CONFIG)


@pytest.mark.data
def test_the_real_excerpt(data_folder):
    source = open_source(str(data_folder / "tiny-imagenet-10"), CONFIG)
    assert source.train is not None and (len(source.train), len(source.val)) == (5000, 500)
    assert source.classes[0] == "n02113799" and source.class_names[0] == "standard poodle"
    assert np.bincount(source.val.labels).tolist() == [50] * 10
    images = load_images(source.val, 64, num_workers=2, max_unreadable=0, memory_limit_bytes=None)
    assert len(images) == 500 and images.skipped == []

"""What the outputs of an imported network are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alexnet import UserError
from alexnet.weights.classes import default_classes, imagenet_classes, read_classes


def test_imagenets_classes_are_a_thousand_in_the_order_of_their_ids() -> None:
    classes = imagenet_classes()
    assert len(classes.ids) == len(set(classes.ids)) == 1000 and list(classes.ids) == sorted(classes.ids)
    assert len({name.lower() for name in classes.names}) == 1000, "a name of its own for each"
    known = {0: "tench", 1: "goldfish", 281: "tabby", 340: "zebra", 388: "giant panda", 779: "school bus"}
    assert {number: classes.names[number] for number in known} == known
    assert classes.ids[0] == "n01440764" and classes.ids[999] == "n15075141"


@pytest.mark.data
def test_imagenets_classes_are_those_of_the_development_kit(data_folder: Path) -> None:
    lines = (data_folder / "ilsvrc2012-devkit" / "synset_words.txt").read_text().splitlines()
    classes = imagenet_classes()
    assert list(classes.ids) == [line.split(" ", 1)[0] for line in lines]
    for name, line in zip(classes.names, lines, strict=True):
        words = {word.strip() for word in line.split(" ", 1)[1].split(",")}
        assert name.partition(" (")[0].partition(",")[0] in words, line


def test_a_thousand_outputs_are_imagenets_and_others_have_numbers() -> None:
    assert default_classes(1000).names[0] == "tench" and "taken as ImageNet's" in (default_classes(1000).note or "")
    assert default_classes(3).ids == ("0", "1", "2") and "--classes FILE names them" in (default_classes(3).note or "")


FILES = {
    "synset_words.txt": ("n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
                         [("n01440764", "tench, Tinca tinca"), ("n01443537", "goldfish")]),
    "categories_places365.txt": ("/b/beach 1\n/a/airfield 0\n", [("/a/airfield",) * 2, ("/b/beach",) * 2]),
    "names.txt": ("cat\n\nbig dog 7\n", [("cat", "cat"), ("big dog 7", "big dog 7")]),
    "windows.txt": ("\ufeffcat\r\ndog\r\n", [("cat", "cat"), ("dog", "dog")]),
    "comments.txt": ("# mine\ncat\ndog\n", [("cat", "cat"), ("dog", "dog")]),
    "list.json": ('["cat", "dog"]', [("cat", "cat"), ("dog", "dog")]),
    "imagenet_class_index.json": ('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
                                  [("n01440764", "tench"), ("n01443537", "goldfish")]),
    "class_to_idx.json": ('{"dog": 1, "cat": 0}', [("cat", "cat"), ("dog", "dog")]),
    "id2label.json": ('{"0": "cat", "1": "dog"}', [("cat", "cat"), ("dog", "dog")]),
    "dataset.json": (json.dumps({"format": "x", "classes": ["c", "d"], "class_names": ["cat", "dog"]}),
                     [("c", "cat"), ("d", "dog")]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "contents"), FILES.items(), ids=FILES.keys())
def test_every_form_in_use_is_read(name, contents, tmp_path: Path) -> None:
    text, rows = contents
    (tmp_path / name).write_bytes(text.encode())
    classes = read_classes(tmp_path / name, 2)
    assert list(zip(classes.ids, classes.names, strict=True)) == rows


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"cat\ndog\nape\n", "names 3 classes, and the network has 2 outputs"),
        (b"cat\ncat\n", "names the class 'cat' twice"),
        (b"\xff\xfe\x00\x01", "is no list of classes; give a line a class"),
        (b'{"0": "cat", "2": "dog"}', "is no list of classes"),
        (b'{"a": [1, 2, 3], "b": 4}', "is no list of classes"),
        (b'[{"a": 1}]', "is no list of classes"),
        (b'["cat", ', "is no list of classes"),
        (b"[" * 100_000, "is no list of classes"),
        (b"", "names 0 classes"),
    ],
)
def test_what_is_no_list_of_the_networks_classes_is_refused(contents, message, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(contents)
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / "c.txt", 2)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read --classes .*none\.txt: No such file"):
        read_classes(tmp_path / "none.txt", 2)

"""Class folders, Tiny-ImageNet-200, Imagenette and CIFAR, in a folder or in the archive they are published as."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from alexnet.data import cifar10
from alexnet.data.decode import UnreadableImage
from alexnet.data.folders import TRAIN_NAMES, VAL_NAMES, is_image_name
from alexnet.data.imagenette import NAMES as IMAGENETTE_NAMES
from alexnet.data.originals.devkit import read_names
from alexnet.data.originals.imagenet import check_counts, open_tree_of_notes
from alexnet.data.originals.listing import Labelled, Original, OriginalSplit, build_original, some
from alexnet.data.originals.trees import Tree
from alexnet.errors import UserError

_NAMED_FOR_CLASS = re.compile(r"(n\d{8})_[^/]+$")
_CIFAR_FILES = ("data_batch_1", "test_batch", "data_batch_1.bin", "test_batch.bin")


def open_class_folders(tree: Tree, name: str) -> Original:
    """One folder a class, with train and val above them or not; images may lie deeper.

    Images in one heap will do where all of them are named as ImageNet's are, WNID_anything.
    Raises UserError, with the remedy, where there are no class folders.
    """
    top = {folder.lower(): folder for folder in sorted(tree.top())}
    train_name = next((top[folder] for folder in TRAIN_NAMES if folder in top), None)
    val_name = next((top[folder] for folder in VAL_NAMES if folder in top), None)
    if train_name is None and not set(top) <= set(VAL_NAMES):
        val_name = None
    notes: list[str] = []
    train = _labelled(tree, f"{train_name}/" if train_name else "") if train_name or not val_name else None
    val = _labelled(tree, f"{val_name}/") if val_name else None
    if val is not None and not val[1]:
        if val_name and val_name.lower() in ("test", "testing"):
            notes.append(f"{val_name} has no class folders, so it is not used.")
            val = None
        else:
            raise UserError(_no_classes(tree, f"{name}/{val_name}", f"{val_name}/"))
    if train is not None and not train[1]:
        raise UserError(_no_classes(tree, name, f"{train_name}/" if train_name else ""))
    classes = {class_id for part in (train, val) if part is not None for class_id in part[2]}
    if train is not None and len(set(train[2])) < 2:
        raise UserError(
            f"{name} has training images of one class only ({train[2][0]}), and two are needed. Give the folder whose "
            "folders are the classes."
        )
    names = read_names([tree, open_tree_of_notes(tree.root.parent)])
    kind = "folder"
    if classes <= set(IMAGENETTE_NAMES):
        kind, names = "imagenette", {**names, **IMAGENETTE_NAMES}
    original = build_original(name, kind, train, val, names=names, notes=notes)
    if len(classes) == 1000 and all(class_id[0] == "n" and class_id[1:].isdecimal() for class_id in classes):
        original.kind = "imagenet"
        original.notes += check_counts("2012", original)
    return original


def _labelled(tree: Tree, prefix: str) -> Labelled:
    images, labels = [], []
    for i, path in enumerate(tree.paths):
        if path.startswith(prefix) and is_image_name(path):
            class_id, slash, _ = path[len(prefix) :].partition("/")
            if slash:
                images.append(i)
                labels.append(class_id)
    if not images:
        loose = [i for i, path in enumerate(tree.paths) if path.startswith(prefix) and is_image_name(path)]
        named = [_NAMED_FOR_CLASS.match(tree.paths[i][len(prefix) :]) for i in loose]
        if loose and all(named):
            return tree, loose, [match[1] for match in named if match is not None]
    return tree, images, labels


def _no_classes(tree: Tree, name: str, prefix: str) -> str:
    loose = [path for path in tree.paths if path.startswith(prefix) and is_image_name(path)]
    if loose:
        return (
            f"{name} has images directly in it ({some([path.rpartition('/')[2] for path in loose])}), so their classes "
            "are unknown. Put each class's images into a folder of its own, or give a CSV file with the columns "
            "path and label."
        )
    return (
        f"{name} holds no images in class folders. Known are: the archives of ImageNet, class folders, Kaggle's "
        "layout, parquet files, WebDataset shards, Tiny-ImageNet-200, Imagenette, CIFAR-10 and 100, a CSV of path "
        "and label."
    )


def is_tiny_imagenet(tree: Tree) -> bool:
    """Whether the tree has the two lists that mark the original layout."""
    return tree.find("wnids.txt") is not None and tree.find("val/val_annotations.txt") is not None


def open_tiny_imagenet(tree: Tree, name: str) -> Original:
    """Tiny-ImageNet-200: validation images lie in one folder, with a list of their classes."""
    wnids = sorted(set((tree.text("wnids.txt") or "").split()))
    known = set(wnids)
    train_images = [i for i, path in enumerate(tree.paths) if path.startswith("train/") and is_image_name(path)]
    labels = [tree.paths[i].split("/")[1] for i in train_images]
    if lacking := known - set(labels):
        raise UserError(f"{name}: there are no images of {min(lacking)}, which wnids.txt lists. Unpack it whole.")
    val: tuple[list[int], list[str]] = ([], [])
    missing = []
    for number, line in enumerate((tree.text("val/val_annotations.txt") or "").splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not line.strip():
            continue
        i = tree.find(f"val/images/{file}")
        if wnid not in known:
            raise UserError(f"{name}: line {number} of val_annotations.txt has no class of wnids.txt: {line[:60]!r}.")
        if i is None:
            missing.append(file)
            continue
        val[0].append(i)
        val[1].append(wnid)
    if not val[0]:
        raise UserError(f"{name}: none of the images that val_annotations.txt lists is there. Unpack it whole.")
    keep = [at for at, label in enumerate(labels) if label in known]
    train = [train_images[at] for at in keep], [labels[at] for at in keep]
    notes = [f"Missing, though val_annotations.txt lists them: {some(missing)}."] if missing else []
    names = read_names([tree])
    original = build_original(name, "tiny_imagenet", (tree, *train), (tree, *val), names=names, notes=notes)
    original.image_size = 64
    return original


def find_cifar(tree: Tree) -> tuple[str, str] | None:
    """Which CIFAR is in the tree, cifar10 or cifar100, and its files' folder, "" for the top; None without one."""
    for path in tree.paths:
        folder, slash, file = path.rpartition("/")
        if folder.count("/") == 0 and file in _CIFAR_FILES:
            return "cifar10", folder
        if (
            folder.count("/") == 0
            and file == "meta"
            and all(tree.find(f"{folder}{slash}{name}") is not None for name in ("train", "test"))
        ):
            return "cifar100", folder
    return None


def open_cifar(tree: Tree, kind: str, folder: str) -> Original:
    """CIFAR's batches; the images are pixels, not files."""
    prefix = f"{folder}/" if folder else ""

    def read_bytes(path: Path) -> bytes:
        i = tree.find(prefix + path.name)
        if i is None:
            raise FileNotFoundError(path)
        try:
            return tree.read(i)
        except UnreadableImage as error:
            raise OSError(str(error)) from None

    open_files = cifar10.open_cifar10 if kind == "cifar10" else cifar10.open_cifar100
    source = open_files(tree.root / folder, read_bytes)
    assert source.train is not None

    def split(part: str, labels: np.ndarray, array: np.ndarray) -> OriginalSplit:
        paths = [f"{part}_{i:05d}" for i in range(len(labels))]
        return OriginalSplit(
            labels, paths, paths.__getitem__, lambda i: np.ascontiguousarray(array[i]), lambda: array.nbytes
        )

    assert source.train.array is not None and source.val.array is not None
    return Original(
        kind,
        kind,
        source.classes,
        source.class_names,
        split("train", source.train.labels, source.train.array),
        split("test", source.val.labels, source.val.array),
        notes=list(source.notes),
        image_size=32,
    )

"""Tiny-ImageNet-200's original layout, whose validation images lie in one folder with a list of their classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from alexnet.data.folders import list_images, split_of
from alexnet.data.splits import Source, build_source
from alexnet.errors import UserError

_FILES = ("wnids.txt", "train", "val/val_annotations.txt", "val/images")


def is_tiny_imagenet(root: Path) -> bool:
    """Whether `root` has the two lists that mark the original layout."""
    return (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file()


def open_tiny_imagenet(root: Path) -> Source:
    """Training images of train/WNID/images, validation images of val/images with the labels of val_annotations.txt.

    The classes are those of wnids.txt in sorted order (the file's own order is another), with the names of words.txt
    where there is one. Any number of classes will do. Raises UserError for a missing or unfitting file.
    """
    for name in _FILES:
        if not (root / name).exists():
            raise UserError(
                f"{root} is not Tiny-ImageNet's original layout: {root / name} is missing; unpack it whole."
            )
    wnids = sorted({line.strip() for line in _read_lines(root / "wnids.txt")} - {""})
    if len(wnids) < 2:
        raise UserError(f"{root / 'wnids.txt'} lists {len(wnids)} classes; at least two are needed.")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = [(path, label) for wnid, label in label_of.items() for path in _train_images(root, wnid)]
    val = [(root / "val" / "images" / file, label_of[wnid]) for file, wnid in _annotations(root, label_of)]
    notes = ["words.txt is missing, so the classes have no names."] if not (root / "words.txt").is_file() else []
    return build_source(
        name=root.resolve().name,
        kind="tiny_imagenet",
        classes=wnids,
        class_names=_class_names(root / "words.txt", wnids),
        train=split_of("train", root, train),
        val=split_of("val", root, sorted(val)),
        notes=notes,
    )


def _train_images(root: Path, wnid: str) -> list[Path]:
    folder = root / "train" / wnid
    images = list_images(folder) if folder.is_dir() else []
    if not images:
        raise UserError(f"{folder} has no images, but wnids.txt lists {wnid}; add them, or remove that line.")
    return images


def _annotations(root: Path, label_of: dict[str, int]) -> list[tuple[str, str]]:
    """(file name, wnid) of each validation image."""
    path = root / "val" / "val_annotations.txt"
    annotations = []
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        file, *rest = line.rstrip("\n").split("\t")
        if not rest or rest[0] not in label_of or Path(file).name != file:
            raise UserError(
                f"Line {number} of {path} is not a file name and a class of wnids.txt, parted by a tab: "
                f"{line.strip()[:80]!r}. Unpack the archive again."
            )
        annotations.append((file, rest[0]))
    if not annotations:
        raise UserError(f"{path} lists no validation images; unpack the whole archive again.")
    repeated = [file for file, count in Counter(file for file, _ in annotations).items() if count > 1]
    if repeated:
        raise UserError(f"{path} lists {repeated[0]} more than once; each image has one class. Remove the other lines.")
    return annotations


def _class_names(path: Path, wnids: list[str]) -> list[str]:
    """The first of each class's names, or all of them where the first would name two classes alike; else the wnid."""
    words: dict[str, str] = {}
    if path.is_file():
        wanted = set(wnids)
        for line in _read_lines(path):
            wnid, _, names = line.partition("\t")
            if wnid in wanted and names.strip():
                words[wnid] = names.strip()
    full = [words.get(wnid, wnid) for wnid in wnids]
    first = [name.split(",")[0].strip() or name for name in full]
    counts = Counter(first)
    return [short if counts[short] == 1 else long for short, long in zip(first, full, strict=True)]


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "backslashreplace").splitlines()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}. Make it readable, or unpack the archive again."
        ) from None

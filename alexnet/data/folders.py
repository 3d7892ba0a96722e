"""Folders of class folders: one folder a class, with or without a split above them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alexnet.config import DataConfig
from alexnet.data.decode import IMAGE_SUFFIXES, decode_image
from alexnet.data.holdout import hash_files, hold_out
from alexnet.data.splits import Source, Split, build_source
from alexnet.errors import UserError
from alexnet.runtime.text import valid_text

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "validation", "valid", "test", "testing")
_SUFFIXES_SHOWN = "jpg, png, webp, gif, bmp, tif, ppm"
_MAX_NAMES_SHOWN = 5


@dataclass
class Listing:
    """The images below one folder of class folders: class name -> paths in sorted order, empty classes included."""

    root: Path
    images: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes that have images."""
        return [name for name, paths in self.images.items() if paths]


def open_folder(
    root: Path,
    config: DataConfig,
    num_workers: int,
    *,
    kind: str = "folder",
    names: Mapping[str, str] | None = None,
) -> Source:
    """Read ROOT/{train,val}/CLASS/... or ROOT/CLASS/...; images may lie in folders below CLASS.

    Without a validation folder, `config.val_fraction` of each class is held out by content (see holdout). names gives
    human names to classes. Raises UserError with the remedy for a folder without this form.
    """
    train_root, val_root = find_splits(root)
    if train_root is None and val_root is not None:
        val = list_classes(val_root)
        _refuse_unusable(val, min_classes=1)
        return _build(root, kind, names, None, val, val.classes)
    train = list_classes(train_root or root)
    if val_root is not None and _is_unlabelled_test(val_root):
        train.notes.append(
            f"{val_root} has no class folders, so it is not used; a part of {train.root} is held out instead."
        )
        val_root = None
    _refuse_unusable(train, min_classes=2)
    if val_root is None:
        return _build_held_out(root, kind, names, train, config, num_workers)
    val = list_classes(val_root)
    _refuse_unusable(val, min_classes=1)
    _compare_classes(train, val)
    return _build(root, kind, names, train, val, train.classes)


def find_splits(root: Path) -> tuple[Path | None, Path | None]:
    """The train and the val folder of `root`, in any case of letters; None for one that is missing.

    A folder named like a validation split beside other class folders, and without a train folder, is a class.
    """
    folders = {path.name.lower(): path for path in subfolders(root)}
    train = next((folders[name] for name in TRAIN_NAMES if name in folders), None)
    val = next((folders[name] for name in VAL_NAMES if name in folders), None)
    if train is None and not set(folders) <= set(VAL_NAMES):
        val = None
    return train, val


def is_class_tree(root: Path) -> bool:
    """Whether images below `root` are sorted into classes: a train or val folder, or at least two class folders.

    Images that lie directly in it say that it is not.
    """
    train, val = find_splits(root)
    if train is not None or val is not None:
        return any(list_images(path) for base in (train, val) if base is not None for path in subfolders(base))
    return not _loose_images(root) and sum(bool(list_images(path)) for path in subfolders(root)) >= 2


def list_classes(root: Path) -> Listing:
    """All images in the class folders of `root`, classes in the order of their labels."""
    folders = {path.name: path for path in subfolders(root)}
    names, note = sort_classes(folders)
    listing = Listing(root, {name: list_images(folders[name]) for name in names}, [note] if note else [])
    empty = [name for name, paths in listing.images.items() if not paths]
    if empty and listing.classes:
        listing.notes.append(f"No images in {_some(empty)} of {root}: left out.")
    return listing


def sort_classes(names: Sequence[str] | Mapping[str, object]) -> tuple[list[str], str | None]:
    """Class names in the order of their labels, and a note where that is not the order of the letters."""
    by_letters = sorted(names)
    if not by_letters or not all(name.isascii() and name.isdecimal() for name in by_letters):
        return by_letters, None
    by_number = sorted(by_letters, key=int)
    if by_number == by_letters:
        return by_letters, None
    return by_number, "The class folders are numbers; the classes are in the order of the numbers (2 before 10)."


def list_images(folder: Path) -> list[Path]:
    """Image files below `folder`, at any depth, sorted; hidden ones and links back to a folder above are left out."""
    found: list[Path] = []
    pending: list[tuple[Path, frozenset[str]]] = [(folder, frozenset([os.path.realpath(folder)]))]
    while pending:
        current, above = pending.pop()
        for entry in _scan(current):
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above:
                    pending.append((Path(entry.path), above | {real}))
            elif is_image_name(entry.name) and _is_file_or_broken_link(entry):
                found.append(Path(entry.path))
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def subfolders(root: Path) -> list[Path]:
    """The folders directly in `root`, sorted by name, without hidden ones."""
    return [Path(entry.path) for entry in _scan(root) if entry.is_dir() and entry.name != "__MACOSX"]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def split_of(name: str, root: Path, images: Sequence[tuple[Path, int]]) -> Split:
    """A split of image files with labels; the keys are paths relative to `root`."""
    paths = [path for path, _ in images]
    labels = np.array([label for _, label in images], np.int64)
    return Split(name, labels, [key_of(path, root) for path in paths], lambda i: decode_image(paths[i]))


def key_of(path: Path, root: Path) -> str:
    """The path relative to the root with slashes, as valid text."""
    return valid_text(path.relative_to(root).as_posix())


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"Cannot list the folder {folder}: {error.strerror}. Make it readable, or move it away."
        ) from None


def _is_file_or_broken_link(entry: os.DirEntry[str]) -> bool:
    # A broken link is kept: it is reported as unreadable rather than silently missed. Pipes and devices would hang.
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def _loose_images(root: Path) -> list[str]:
    return [entry.name for entry in _scan(root) if not entry.is_dir() and is_image_name(entry.name)]


def _is_unlabelled_test(root: Path) -> bool:
    return root.name.lower() in ("test", "testing") and not any(list_images(path) for path in subfolders(root))


def _refuse_unusable(listing: Listing, *, min_classes: int) -> None:
    """Raise UserError for a folder that is not made of at least `min_classes` class folders with images."""
    root = listing.root
    if not listing.classes:
        loose = _loose_images(root)
        if loose:
            raise UserError(
                f"{root} has images directly in it ({_some(loose)}), so their classes are unknown. Put each class's "
                f"images into a folder of its own: {root}/cat/..., {root}/dog/...; or, where this is the folder of one "
                "class, give the folder that it is in."
            )
        if listing.images:
            raise UserError(
                f"The folders in {root} ({_some(list(listing.images))}) hold no images; images are files named "
                f"{_SUFFIXES_SHOWN}, in a folder for each class: {root}/cat/..., {root}/dog/..."
            )
        raise UserError(
            f"{root} is empty; it should hold a folder of images for each class: {root}/cat/..., {root}/dog/..."
        )
    if len(listing.classes) < min_classes:
        only = listing.classes[0]
        inner = [path.name for path in subfolders(root / only)]
        hint = f" If the classes are the folders inside it, give {root / only}." if inner else ""
        raise UserError(
            f"{root} has images of one class only ({only}); a classifier needs at least two class folders.{hint}"
        )


def _compare_classes(train: Listing, val: Listing) -> None:
    """Raise UserError when val has a class that train lacks; note the opposite."""
    in_val = set(val.classes)
    unknown = sorted(in_val - set(train.classes))
    missing = [name for name in train.classes if name not in in_val]
    if unknown and not in_val & set(train.classes):
        raise UserError(
            f"{train.root} and {val.root} have no class in common ({_some(train.classes)}; {_some(val.classes)}). "
            "Name the class folders of both alike."
        )
    if unknown:
        raise UserError(
            f"{val.root} has images of {_some(unknown)}, of which {train.root} has none. Add training images, rename "
            f"the folders alike, or move {'it' if len(unknown) == 1 else 'them'} out of {val.root}."
        )
    if missing:
        train.notes.append(f"No validation images of {_some(missing)} in {val.root}: the errors say nothing about it.")


def _build_held_out(
    root: Path, kind: str, names: Mapping[str, str] | None, train: Listing, config: DataConfig, num_workers: int
) -> Source:
    paths = [path for name in train.classes for path in train.images[name]]
    labels = np.array([label for label, name in enumerate(train.classes) for _ in train.images[name]], np.int64)
    contents = hash_files(paths, num_workers)
    held_out = hold_out(contents, labels, config.val_fraction, config.split_seed)
    if not held_out.any():
        raise UserError(
            f"{train.root} has only one distinct image in each class, so none can be held out for validation. Add "
            "images, or a validation folder beside the training folder: train/CLASS/..., val/CLASS/..."
        )
    parts: list[Listing] = []
    for side in (False, True):
        images: dict[str, list[Path]] = {name: [] for name in train.classes}
        for path, label, is_held_out in zip(paths, labels.tolist(), held_out.tolist(), strict=True):
            if is_held_out == side:
                images[train.classes[label]].append(path)
        parts.append(Listing(train.root, images))
    train_part, val_part = parts
    train_part.notes = [*train.notes, *_duplicate_notes(contents, labels)]
    lost = [name for name, images in val_part.images.items() if not images]
    if lost:
        train_part.notes.append(f"Too few distinct images of {_some(lost)} to hold one out for validation.")
    return _build(root, kind, names, train_part, val_part, train.classes)


def _duplicate_notes(contents: Sequence[bytes], labels: np.ndarray) -> list[str]:
    counts = Counter(contents)
    owners: dict[bytes, set[int]] = {}
    for content, label in zip(contents, labels.tolist(), strict=True):
        owners.setdefault(content, set()).add(label)
    notes = []
    num_copies = sum(count - 1 for count in counts.values())
    if num_copies:
        notes.append(f"{num_copies} images are exact copies of others; all copies of one are on one side of the split.")
    num_shared = sum(len(labels) > 1 for labels in owners.values())
    if num_shared:
        notes.append(f"{num_shared} images lie in more than one class; no classifier can get these right.")
    return notes


def _build(
    root: Path, kind: str, names: Mapping[str, str] | None, train: Listing | None, val: Listing, classes: list[str]
) -> Source:
    names = names or {}

    def split(name: str, listing: Listing) -> Split:
        images = [(path, i) for i, class_id in enumerate(classes) for path in listing.images.get(class_id, ())]
        return split_of(name, root, images)

    return build_source(
        name=root.resolve().name or str(root),
        kind=kind,
        classes=classes,
        class_names=[names.get(name, name) for name in classes],
        train=None if train is None else split("train", train),
        val=split("val", val),
        notes=[*(train.notes if train else ()), *val.notes],
    )


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(names[:_MAX_NAMES_SHOWN])
    return shown if len(names) <= _MAX_NAMES_SHOWN else f"{shown} and {len(names) - _MAX_NAMES_SHOWN} more"

"""What is wrong with the folders of a data set, seen from the names alone."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from alexnet.data.folders import (
    TRAIN_NAMES,
    VAL_NAMES,
    Listing,
    find_splits,
    is_image_name,
    list_classes,
    list_images,
    subfolders,
)
from alexnet.doctor.findings import Finding, capped, finding, some

_LITTER = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", ".spotlight-v100", ".trashes"})
_UNREAD_IMAGES = frozenset(
    f".{name}" for name in ("heic", "heif", "svg", "dng", "nef", "cr2", "cr3", "arw", "raw", "psd", "jxl", "eps", "pdf")
)
_LIST_NAMES = ("annotation", "label", "ground_truth", "synset", "solution")


def inspect_tree(root: Path) -> list[Finding]:
    """Findings about ROOT/{train,val}/CLASS/... or ROOT/CLASS/...; opens no image."""
    train_root, val_root = find_splits(root)
    if train_root is None and val_root is None:
        nested = _nested(root)
        if nested is not None:
            return [nested, *_other_files(root)]
    findings = []
    for part in (train_root, val_root):
        if part is not None:
            findings += _inner_splits(part)
    main = list_classes(train_root or val_root or root)
    findings += _class_folders(root, main, is_only_val=train_root is None and val_root is not None)
    if train_root is not None and val_root is not None:
        val = list_classes(val_root)
        flat = _flat_validation(val, main)
        findings += [flat] if flat is not None else _compare(main, val)
    return [*findings, *_other_files(root)]


def _nested(root: Path) -> Finding | None:
    """A folder whose only folder is the data set."""
    inner = subfolders(root)
    if len(inner) != 1 or any(is_image_name(entry.name) for entry in os.scandir(root)):
        return None
    only = inner[0]
    if any(find_splits(only)) or (_holds_classes(only) and not _loose(only)):
        below = some([path.name for path in subfolders(only)])
        return finding(
            "nested-too-deep",
            str(root),
            f"{root} holds nothing but {only.name}, whose folders ({below}) are the splits or classes.",
            remedy=f"Give the inner folder: {only}",
        )
    return None


def _holds_classes(folder: Path) -> bool:
    return sum(bool(list_images(path)) for path in subfolders(folder)) >= 2


def _loose(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image_name(entry.name) and not entry.name.startswith("."))


def _inner_splits(part: Path) -> list[Finding]:
    """Folders named like a split inside a split, with class folders of their own."""
    inner = [path for path in subfolders(part) if path.name.lower() in (*TRAIN_NAMES, *VAL_NAMES)]
    return [
        finding(
            "split-inside-split",
            str(part.parent),
            f"{path} is a split inside a split; its images would count as one class named {path.name}.",
            capped([folder.name for folder in subfolders(path)]),
        )
        for path in inner
        if _holds_classes(path)
    ]


def _class_folders(root: Path, listing: Listing, *, is_only_val: bool) -> list[Finding]:
    findings = []
    loose = _loose(listing.root)
    if not listing.classes and loose:
        what = f"{listing.root} has {len(loose)} images and no class folders, so their classes are unknown."
        findings.append(finding("no-class-folders", str(root), what, capped(loose)))
    elif loose:
        what = f"{len(loose)} images lie beside the class folders of {listing.root} and are not used."
        findings.append(finding("loose-images", str(root), what, capped(loose)))
    if len(listing.classes) == 1 and not is_only_val:
        only = listing.root / listing.classes[0]
        inner = [path.name for path in subfolders(only)]
        remedy = f"If the classes are the folders inside it, give {only}." if inner else None
        what = f"All images of {listing.root} are of one class, {listing.classes[0]}; two are needed."
        findings.append(finding("one-class", str(root), what, capped(inner), remedy=remedy))
    empty = [name for name, images in listing.images.items() if not images]
    if empty and listing.classes:
        what = f"{len(empty)} class folders of {listing.root} hold no images that can be read; they are left out."
        findings.append(finding("empty-class", str(root), what, capped(empty)))
    return findings


def _flat_validation(val: Listing, train: Listing) -> Finding | None:
    """Validation images in one folder: val itself, or one folder in it that is no class of train (val/images)."""
    folder = val.root
    images = _loose(folder)
    if len(val.classes) == 1 and val.classes[0] not in train.classes and len(train.classes) > 1:
        folder = val.root / val.classes[0]
        images = [path.name for path in val.images[val.classes[0]]]
    elif val.classes or not images:
        return None
    lists = [path for place in (val.root, val.root.parent) for path in sorted(place.iterdir()) if _is_list(path)]
    unlabelled = val.root.name.lower() in ("test", "testing") and folder == val.root
    evidence = [*capped(images), *(f"a list that may hold the labels: {path}" for path in lists[:3])]
    return finding(
        "flat-validation",
        str(val.root.parent),
        f"All {len(images)} validation images lie in one folder, {folder}, without class folders; their classes are "
        "unknown."
        + (" The folder is not used; a part of the training images is held out instead." if unlabelled else ""),
        evidence,
        # A test folder without labels is usual, and left aside when opened.
        severity="note" if unlabelled else None,
    )


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in (".txt", ".csv", ".mat", ".json") and any(
        word in path.name.lower() for word in _LIST_NAMES
    )


def _compare(train: Listing, val: Listing) -> list[Finding]:
    """Classes that only one of the splits has."""
    about = str(train.root.parent)
    findings = []
    in_train, in_val = set(train.classes), set(val.classes)
    only_val = [name for name in val.classes if name not in in_train]
    missing = [name for name in train.classes if name not in in_val]
    by_lower = {name.lower(): name for name in train.classes}
    if only_val and in_train:
        evidence = [f"{name} (in train: {by_lower[name.lower()]})" if name.lower() in by_lower else name
                    for name in only_val]  # fmt: skip
        what = f"{len(only_val)} of {len(val.classes)} classes of {val.root} are not in {train.root}."
        findings.append(finding("classes-only-in-val", about, what, capped(evidence)))
    if missing and in_val:
        what = f"{len(missing)} of {len(train.classes)} classes have no validation images in {val.root}."
        findings.append(finding("classes-missing-in-val", about, what, capped(missing)))
    return findings


def _other_files(root: Path) -> list[Finding]:
    """Litter, images in formats that are not read, and other files; one walk, links not followed."""
    litter: list[str] = []
    unread: Counter[str] = Counter()
    others: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for folder, folders, files in os.walk(root):
        place = os.path.relpath(folder, root)
        for name in [*folders, *files]:
            suffix = os.path.splitext(name)[1].lower()
            if name.lower() in _LITTER or (name.startswith("._") and name in files):
                litter.append(os.path.normpath(os.path.join(place, name)))
            elif name in folders or name.startswith(".") or is_image_name(name):
                continue
            else:
                (unread if suffix in _UNREAD_IMAGES else others)[suffix or name] += 1
                examples.setdefault(suffix or name, os.path.normpath(os.path.join(place, name)))
        folders[:] = [name for name in folders if name.lower() not in _LITTER and not name.startswith(".")]
    findings = []
    for id, counts, what in (
        ("unread-image-format", unread, "images are in a format that is not read here"),
        ("other-files", others, "files are no images and are not used"),
    ):
        if counts:
            rows = [f"{count} x {suffix}, such as {examples[suffix]}" for suffix, count in counts.most_common()]
            findings.append(finding(id, str(root), f"{counts.total()} {what}.", capped(rows)))
    if litter:
        what = f"{len(litter)} files or folders that a desktop left behind; they are not used."
        findings.append(finding("litter", str(root), what, capped(sorted(litter))))
    return findings

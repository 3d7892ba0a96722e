"""ImageNet as image-net.org and Kaggle give it out: ILSVRC-2010, ILSVRC-2012, the releases of all classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.data.folders import is_image_name
from alexnet.data.originals.devkit import Devkit, read_devkit, read_names, read_other_lists
from alexnet.data.originals.listing import Labelled, Original, build_original
from alexnet.data.originals.trees import Tree, archive_tree
from alexnet.errors import UserError

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class OfficialFile:
    """What is published about a file: bytes and md5, where they are known."""

    num_bytes: int | None
    md5: str | None


OFFICIAL_FILES = {
    # md5 sums as image-net.org gives them beside the downloads.
    "ILSVRC2012_img_train.tar": OfficialFile(147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
    "ILSVRC2012_img_val.tar": OfficialFile(6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
    "ILSVRC2012_devkit_t12.tar.gz": OfficialFile(None, "fa75699e90414af021442c21a62c3abf"),
}
# Images of the training and the validation split, as published.
OFFICIAL_COUNTS = {"2012": (1_281_167, 50_000), "2010": (1_261_406, 50_000), "fall11": (14_197_122, 0)}

_TRAIN_TAR = re.compile(r"ILSVRC(\d{4})_(?:img|images)_train\.tar$")
_VAL_TAR = re.compile(r"ILSVRC(\d{4})_(?:img|images)_val\.tar$")
_KIT_TAR = re.compile(r"ILSVRC(\d{4})_devkit.*\.(?:tar\.gz|tgz|tar)$")
_WHOLE_TAR = re.compile(r"(fall11|winter21)_whole\.tar$")
_CLASS_TAR = re.compile(r"n\d{8}\.tar$")
_VAL_IMAGE = re.compile(r"ILSVRC(\d{4})_val_\d{8}\.[^/]*$")
_WNID = re.compile(r"n\d{8}$")


def is_official(path: Path) -> bool:
    """Whether a file, or a file in a folder, is one of the archives of image-net.org."""
    files = [path] if path.is_file() else list(path.iterdir()) if path.is_dir() else []
    patterns = (_TRAIN_TAR, _VAL_TAR, _WHOLE_TAR, _CLASS_TAR)
    return any(pattern.match(file.name) for file in files for pattern in patterns)


def open_official(path: Path, on_progress: OnProgress | None = None) -> tuple[Original, list[Path]]:
    """The data set of the official archives in a folder (or beside the one given), and the archives that it is of."""
    folder = path if path.is_dir() else path.parent
    year = _year(path, folder)
    found = _find(folder, year)
    kit = _find_kit(folder, found.get("kit"))
    train: Labelled | None = None
    val: Labelled | None = None
    archives = [found[part] for part in ("train", "val", "kit", "whole") if part in found]
    if "whole" in found or "classes" in found:
        if "whole" in found:
            tree = archive_tree([found["whole"]], on_progress)
        else:
            tars = sorted(file for file in folder.iterdir() if _CLASS_TAR.match(file.name))
            tree = archive_tree(tars, on_progress, prefix=lambda file: f"{file.stem}/")
        train = _by_folder(tree)
        name = found["whole"].stem if "whole" in found else folder.resolve().name
        names = read_names([open_tree_of_notes(folder)])
        original = build_original(name, "imagenet_archives", train, None, names=names)
        original.notes += check_counts(name.removesuffix("_whole") if "whole" in found else "", original)
        return original, archives
    if "train" in found:
        train = _by_folder(archive_tree([found["train"]], on_progress))
    if "val" in found:
        val = label_flat(archive_tree([found["val"]], on_progress), kit, folder, year)
    names = {**read_names([open_tree_of_notes(folder)]), **(kit.names if kit else {})}
    original = build_original(
        f"ILSVRC{year}",
        "imagenet_archives",
        train,
        val,
        names=names,
        needs_val=f"{folder} has no ILSVRC{year}_img_val.tar. Put it there, with the development kit for its labels.",
    )
    original.notes += check_counts(year, original)
    return original, archives


def check_counts(release: str, original: Original) -> list[str]:
    """What to say where the numbers of images are not the published ones."""
    if release not in OFFICIAL_COUNTS:
        return []
    notes = []
    for name, split, published in zip(
        ("training", "validation"), (original.train, original.val), OFFICIAL_COUNTS[release], strict=True
    ):
        count = len(split) if split is not None else 0
        if count != published and published:
            kind = "fewer" if count < published else "more"
            notes.append(
                f"{count:,} {name} images, {abs(published - count):,} {kind} than the {published:,} of the official "
                "set: this is a part of it, or files are missing."
            )
    return notes


def label_flat(tree: Tree, kit: Devkit | None, folder: Path, year: str) -> Labelled:
    """Validation images in one heap (or already in class folders) with their wnids.

    Raises UserError, saying which file to put where, when there is no list of the labels.
    """
    images = [i for i, path in enumerate(tree.paths) if is_image_name(path)]
    if images and all(_WNID.match(tree.paths[i].split("/")[-2] if "/" in tree.paths[i] else "") for i in images):
        return tree, images, [tree.paths[i].split("/")[-2] for i in images]
    if kit is None:
        kit_name = "ILSVRC2010_devkit-1.0.tar.gz" if year == "2010" else "ILSVRC2012_devkit_t12.tar.gz"
        raise UserError(
            f"The validation images in {tree.root} are not in class folders, and their labels are in none of the files "
            f"there. Put {kit_name} (2.5 MB, from image-net.org) into {folder}; Kaggle's LOC_val_solution.csv does as "
            "well."
        )
    years = {match[1] for i in images if (match := _VAL_IMAGE.search(tree.paths[i]))}
    if kit.year is not None and years - {kit.year}:
        raise UserError(
            f"The validation images in {tree.root} are of {' and '.join(sorted(years))}, and {kit.origin} numbers "
            f"those of {kit.year}, which are others. Put the development kit of their own year there."
        )
    labels = [kit.find(tree.paths[i]) for i in images]
    unknown = [tree.name(i) for i, label in zip(images, labels, strict=True) if label is None]
    if unknown:
        raise UserError(
            f"{kit.origin} has no label for {len(unknown)} of the {len(images)} validation images, the first: "
            f"{unknown[0]}. The list is of another set, or cut off."
        )
    return tree, images, [label for label in labels if label is not None]


def open_unpacked(tree: Tree, train_name: str, val_name: str) -> Original:
    """Unpacked ILSVRC: class folders for training, validation images in one folder with a list somewhere.

    Also Kaggle's layout, ILSVRC/Data/CLS-LOC/{train,val} with LOC_val_solution.csv at the top.
    """
    kit = read_devkit(tree) or read_other_lists(tree) or _find_kit(tree.root, None) or _find_kit(tree.root.parent, None)
    train_tree, val_tree = tree.below(train_name), tree.below(val_name)
    train = _by_folder(train_tree) if len(train_tree) else None
    year = "2010" if "2010" in tree.root.name else "2012"
    val = label_flat(val_tree, kit, tree.root, year) if len(val_tree) else None
    names = {**read_names([tree, open_tree_of_notes(tree.root.parent)]), **(kit.names if kit else {})}
    original = build_original(f"ILSVRC{year}", "imagenet", train, val, names=names)
    original.notes += check_counts(year, original)
    return original


def find_flat_validation(tree: Tree) -> tuple[str, str] | None:
    """The folders of training and validation images of unpacked ILSVRC whose validation images need a list, or None."""
    flat = re.compile(r"(.*?)(val|validation|valid|ILSVRC\d{4}_img_val)/ILSVRC\d{4}_val_\d{8}\.JPE?G$", re.IGNORECASE)
    match = next((found for path in tree.paths if (found := flat.match(path))), None)
    if match is None:
        return None
    front = match[1]
    inside = {path[len(front) :].partition("/")[0] for path in tree.paths if path.startswith(front)}
    train = next((name for name in ("train", "training", "ILSVRC2012_img_train") if name in inside), "train")
    return front + train, front + match[2]


def open_tree_of_notes(folder: Path) -> Tree:
    """The text files directly in a folder, as a tree: lists lie beside what they are about."""
    tree = Tree(folder)
    for file in _files(folder):
        if file.suffix.lower() in (".txt", ".json", ".csv", ".mat") and file.is_file():
            tree.add_file(file.name, file)
    return tree


def _files(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it is none, or must not be listed, as folders above the data may not."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _year(path: Path, folder: Path) -> str:
    """The year of the archive that was given, or of those in the folder; "" where there is none of ILSVRC."""
    names = [path.name] if path.is_file() else [file.name for file in _files(folder)]
    years = {match[1] for name in names for pattern in (_TRAIN_TAR, _VAL_TAR) if (match := pattern.match(name))}
    if len(years) > 1:
        raise UserError(
            f"{folder} holds ILSVRC of {' and '.join(sorted(years))}; give an archive of the year you want."
        )
    return next(iter(years), "")


def _find(folder: Path, year: str) -> dict[str, Path]:
    """The official archives in a folder by their part; those of ILSVRC only of one year."""
    found: dict[str, Path] = {}
    for file in _files(folder):
        for part, pattern in (("train", _TRAIN_TAR), ("val", _VAL_TAR), ("kit", _KIT_TAR), ("whole", _WHOLE_TAR)):
            match = pattern.match(file.name)
            if match and file.is_file() and (part == "whole" or match[1] == year):
                found.setdefault(part, file)
        if _CLASS_TAR.match(file.name):
            found.setdefault("classes", file)
    if "train" in found or "val" in found:
        found.pop("whole", None)
        found.pop("classes", None)
    return found


def _find_kit(folder: Path, archive: Path | None) -> Devkit | None:
    """Labels and names from the kit's archive, from its unpacked folder, or from the other lists in the folder."""
    if archive is None:
        archive = next((file for file in _files(folder) if _KIT_TAR.match(file.name)), None)
    if archive is not None:
        kit = read_devkit(archive_tree([archive]))
        if kit is None:
            raise UserError(f"{archive} has no meta.mat and no ground truth: it is not the kit. Download it again.")
        return kit
    places = [folder, folder / "data", *(file for file in _files(folder) if "devkit" in file.name.lower())]
    for place in places:
        for inner in (place, place / "data"):
            notes = open_tree_of_notes(inner)
            kit = read_devkit(notes) or read_other_lists(notes)
            if kit is not None:
                return kit
    return None


def _by_folder(tree: Tree) -> Labelled:
    """Images labelled by the folder they are in, whatever is above it."""
    images = [i for i, path in enumerate(tree.paths) if is_image_name(path) and "/" in path]
    return tree, images, [_class_of(tree.paths[i].split("/")[:-1]) for i in images]


def _class_of(folders: Sequence[str]) -> str:
    return next((name for name in folders if _WNID.match(name)), folders[0])

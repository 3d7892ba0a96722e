"""From a path to the data set that is there, without being told which it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexnet.data.folders import TRAIN_NAMES, VAL_NAMES, is_image_name
from alexnet.data.originals import imagenet, layouts, parquet, tables, webdataset
from alexnet.data.originals.archives import is_archive, refuse_other_archives
from alexnet.data.originals.listing import Original
from alexnet.data.originals.trees import Tree, archive_tree, open_tree, without_wrapper
from alexnet.data.prepared import DESCRIPTION, FORMAT, WORK
from alexnet.errors import UserError

OnProgress = Callable[[str], Callable[[int, int], None]]
"""Makes a callback (done, of) for a piece of work that it is given the name of."""


@dataclass(frozen=True)
class Recognized:
    """A data set, and the archives it is read from."""

    original: Original
    archives: tuple[Path, ...]


def recognize_original(path: Path, work: Path, on_progress: OnProgress) -> Recognized:
    """Open what is at `path`: see docs/data.md for all that is known.

    work: a folder for what has to be copied (the images of parquet files). Raises UserError, with the remedy.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist. Give a file or a folder, or one of the names of `alexnet prepare -h`.")
    if not path.is_file() and not path.is_dir():  # to read a pipe would wait for ever
        raise UserError(
            f"{path} is no file and no folder. Give the archive itself, or the folder that the images are in."
        )
    reading = f"Reading {path.name or path}"
    if imagenet.is_official(path):
        original, archives = imagenet.open_official(path, on_progress(reading))
        return Recognized(original, tuple(archives))
    if path.is_file():
        return _of_file(path, work, on_progress, reading)
    if _is_prepared(path):
        raise UserError(
            f"{path} is a prepared data set already, or one in the making; train on it with --data {path}, or give "
            "what it was made of."
        )
    files = parquet.find_parquet(path)
    if files:
        return Recognized(parquet.open_parquet(files, path, work, on_progress(reading)), tuple(files))
    shards = webdataset.find_shards(path)
    if shards:
        return Recognized(webdataset.open_webdataset(shards, path, on_progress(reading)), tuple(shards))
    tree = open_tree(path)
    archives = [file for file in sorted(path.iterdir()) if file.is_file() and is_archive(file.name)]
    if archives and not any(is_image_name(name) for name in tree.paths):
        if len(archives) == 1:
            return _of_file(archives[0], work, on_progress, f"Reading {archives[0].name}")
        raise UserError(
            f"{path} holds several archives ({', '.join(file.name for file in archives[:5])}) of no known set; give "
            "one of them."
        )
    return Recognized(_of_tree(tree, path.resolve().name or str(path)), ())


def _is_prepared(folder: Path) -> bool:
    if (folder / WORK / "plan.json").is_file():
        return True
    try:
        record = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # other programs have files of that name, too
    return isinstance(record, dict) and record.get("format") == FORMAT


def _of_file(path: Path, work: Path, on_progress: OnProgress, reading: str) -> Recognized:
    refuse_other_archives(path)
    if path.suffix.lower() == ".parquet":
        return Recognized(parquet.open_parquet([path], path.parent, work, on_progress(reading)), (path,))
    if tables.is_list(path):
        return Recognized(tables.open_list(path), ())
    if not is_archive(path.name):
        raise UserError(
            f"{path} is none of the files that can be prepared: an archive (tar, tar.gz, zip), a parquet file, or a "
            "list (csv, tsv, txt) of path and label."
        )
    tree = archive_tree([path], on_progress(reading))
    if any(name.endswith(".cls") for name in tree.paths):
        return Recognized(webdataset.open_webdataset([path], path.parent), (path,))
    name = path.name
    for suffix in (".gz", ".tgz", ".tar", ".zip"):
        name = name.removesuffix(suffix)
    try:
        return Recognized(_of_tree(tree, name), (path,))
    except UserError as error:
        if not tree.damage:
            raise
        raise UserError(f"{tree.damage[0]}. Download it again. (Of what is before: {error})") from None


def _of_tree(tree: Tree, name: str) -> Original:
    tree = without_wrapper(tree, keep=(*TRAIN_NAMES, *VAL_NAMES))
    cifar = layouts.find_cifar(tree)
    if cifar is not None:
        return layouts.open_cifar(tree, *cifar)
    if layouts.is_tiny_imagenet(tree):
        return layouts.open_tiny_imagenet(tree, name)
    flat = imagenet.find_flat_validation(tree)
    if flat is not None:
        return imagenet.open_unpacked(tree, *flat)
    kaggle = next((path for path in tree.paths if "Data/CLS-LOC/train/" in path), None)
    if kaggle is not None:
        tree = tree.below(kaggle.partition("Data/CLS-LOC/")[0] + "Data/CLS-LOC")
    loose = [path for path in tree.paths if "/" not in path and is_image_name(path)]
    lists = [path for path in tree.paths if "/" not in path and path.lower().endswith((".csv", ".tsv"))]
    if len(lists) == 1 and (loose or not _has_class_folders(tree)) and tree.find(lists[0]) is not None:
        location = tree.location(tree.find(lists[0]) or 0)
        if location.name == lists[0]:
            return tables.open_list(location)
    return layouts.open_class_folders(tree, name)


def _has_class_folders(tree: Tree) -> bool:
    top = {path.split("/")[0] for path in tree.paths if path.count("/") >= 1 and is_image_name(path)}
    return len(top) >= 2 or any(name.lower() in TRAIN_NAMES for name in top)

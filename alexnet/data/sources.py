"""From what a person gives as DATA to a Source: names of built-in sets, and the recognition of folders."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path

from alexnet.config import DataConfig
from alexnet.data import cifar10, imagenette, shapes, tiny_imagenet
from alexnet.data.digits import open_digits
from alexnet.data.folders import is_image_name, open_folder, subfolders
from alexnet.data.prepared import is_prepared, open_prepared
from alexnet.data.remote_prepared import open_remote
from alexnet.data.splits import Source, Split, draw, fingerprint
from alexnet.errors import UserError
from alexnet.runtime.files import expanded_path

__all__ = ["BUILT_IN", "KINDS", "Source", "Split", "is_address", "open_source", "recognize"]

BUILT_IN = ("digits", "shapes")
KINDS = ("folder", "cifar10", "tiny_imagenet", "imagenette", "prepared")
_MAX_SHAPES_SIZE = 4096


def open_source(spec: str, config: DataConfig) -> Source:
    """Open DATA: `digits`, `shapes`, `shapes:SIZE`, a path, or KIND:PATH with a kind of KINDS.

    Of a path, the kind is recognised from the files that are there. `config` gives the held-out share of a set without
    a validation split (val_fraction, split_seed) and the cap on training images. Images are listed, not decoded. Raises
    UserError, with the remedy, for anything that is not a data set.
    """
    source = _open(spec.strip(), config)
    if config.shuffle_window is not None and source.train is not None and source.train.storage.shards is None:
        note = "data.shuffle_window has no effect: this data set has no shards, all its images are shuffled."
        source = replace(source, notes=(*source.notes, note))
    limit = config.max_train_images
    if limit is None or source.train is None or limit >= len(source.train):
        return source
    train = draw(source.train, limit, config.split_seed)
    if train.storage.shards is None:
        mark = fingerprint(source.classes, train, source.val)
    else:  # the set's own, and what was drawn
        mark = fingerprint([source.fingerprint, str(limit), str(config.split_seed)])
    return replace(source, train=train, fingerprint=mark)


def is_address(spec: str) -> bool:
    """Whether DATA is an address, such as https://host/folder."""
    return re.match(r"(prepared:)?[a-z][a-z0-9+]+://", spec) is not None


def recognize(path: Path) -> str:
    """The kind, one of KINDS, of the data set in the folder `path`; UserError where it is none."""
    _check_folder(path)
    if is_prepared(path):
        return "prepared"
    if cifar10.find_cifar10(path) is not None:
        return "cifar10"
    if tiny_imagenet.is_tiny_imagenet(path):
        return "tiny_imagenet"
    if imagenette.is_imagenette(path):
        return "imagenette"
    contents = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    if contents and not subfolders(path) and not any(is_image_name(name) for name in contents):
        raise UserError(
            f"{path} holds no data set that is known here (it has {', '.join(contents[:5])}). Looked for: class "
            "folders, with or without train and val above them; CIFAR-10's data_batch_1 to 5 and test_batch; "
            "Tiny-ImageNet's wnids.txt and val/val_annotations.txt. Give the folder that has one of these."
        )
    return "folder"


def _open(spec: str, config: DataConfig) -> Source:
    if not spec:
        raise UserError(f"No data set is given; give {_choices()}.")
    if spec == "digits":
        return open_digits()
    if spec == "shapes" or spec.startswith("shapes:"):
        return shapes.open_shapes(_shapes_size(spec))
    if is_address(spec):
        return open_remote(spec.removeprefix("prepared:"), config.cache_gb, config.shuffle_window)
    if spec.startswith("hf:"):
        raise UserError(
            f"{spec}: data sets of the Hugging Face Hub are not supported by this version; download its parquet files, "
            "and bring them into form with `alexnet prepare FOLDER DEST`."
        )
    kind, separator, rest = spec.partition(":")
    if not separator or os.path.exists(spec) or len(kind) < 2 or not kind.replace("_", "").isalnum():
        return _open_path(None, expanded_path(spec), config)
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, (*KINDS, *BUILT_IN), n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"{spec}: no kind of data set is named {kind!r}; the kinds are {', '.join(KINDS)}.{meant}")
    if not rest:
        raise UserError(f"{spec}: the path is missing; give {kind}:PATH.")
    return _open_path(kind, expanded_path(rest), config)


def _open_path(kind: str | None, path: Path, config: DataConfig) -> Source:
    _check_folder(path)
    kind = kind or recognize(path)
    if kind == "prepared":
        return open_prepared(path)
    if kind == "cifar10":
        folder = cifar10.find_cifar10(path)
        if folder is None:
            raise UserError(
                f"{path} has none of CIFAR-10's files (data_batch_1 to 5, test_batch, batches.meta), nor a folder "
                f"{' or '.join(cifar10.FOLDERS)}. Give the folder they were unpacked to."
            )
        return cifar10.open_cifar10(folder)
    if kind == "tiny_imagenet":
        return tiny_imagenet.open_tiny_imagenet(path)
    if kind == "imagenette":
        return imagenette.open_imagenette(path, config, _num_workers())
    return open_folder(path, config, _num_workers())


def _check_folder(path: Path) -> None:
    if path.is_dir():
        return
    if not path.exists():
        close = difflib.get_close_matches(str(path), (*BUILT_IN, *KINDS), n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"{path} does not exist. Give {_choices()}.{meant}")
    if re.search(r"\.(tar|tgz|zip|gz|bz2|xz|7z|rar)$", path.name.lower()):
        raise UserError(
            f"{path} is an archive; prepare it (alexnet prepare {path.name} FOLDER) or unpack it, and give the folder."
        )
    raise UserError(f"{path} is a file, not a folder; give the folder that holds the data set.")


def _shapes_size(spec: str) -> int:
    _, _, option = spec.partition(":")
    if spec == "shapes":
        return shapes.DEFAULT_SIZE
    if not (option.isascii() and option.isdecimal() and 8 <= int(option) <= _MAX_SHAPES_SIZE):
        raise UserError(f"{spec}: the size must be a whole number from 8 to {_MAX_SHAPES_SIZE}, as in shapes:64.")
    return int(option)


def _choices() -> str:
    return f"{', '.join(BUILT_IN)}, a folder, or KIND:PATH with one of {', '.join(KINDS)}"


def _num_workers() -> int:
    return min(8, os.cpu_count() or 1)

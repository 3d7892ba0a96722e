"""Imagenette and Imagewoof: ten ImageNet classes each, in folders named by wnid."""

from __future__ import annotations

from pathlib import Path

from alexnet.config import DataConfig
from alexnet.data.folders import find_splits, open_folder, subfolders
from alexnet.data.splits import Source
from alexnet.errors import UserError

_IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_IMAGEWOOF = {
    "n02086240": "Shih-Tzu",
    "n02087394": "Rhodesian ridgeback",
    "n02088364": "beagle",
    "n02089973": "English foxhound",
    "n02093754": "Border terrier",
    "n02096294": "Australian terrier",
    "n02099601": "golden retriever",
    "n02105641": "Old English sheepdog",
    "n02111889": "Samoyed",
    "n02115641": "dingo",
}
NAMES = {**_IMAGENETTE, **_IMAGEWOOF}


def is_imagenette(root: Path) -> bool:
    """Whether `root` has a train and a val folder whose class folders are just those of Imagenette or Imagewoof."""
    parts = find_splits(root)
    if None in parts:
        return False
    return all(
        {path.name for path in subfolders(part)} in (set(_IMAGENETTE), set(_IMAGEWOOF))
        for part in parts
        if part is not None
    )


def open_imagenette(root: Path, config: DataConfig, num_workers: int) -> Source:
    """Class folders with the ten classes' names. Raises UserError when other classes are there, and as open_folder."""
    train_root, val_root = find_splits(root)
    if train_root is None or val_root is None:
        raise UserError(f"{root} is not Imagenette's layout: it needs the folders train and val; unpack it whole.")
    unknown = [path for path in subfolders(train_root) if path.name not in NAMES]
    if unknown:
        raise UserError(f"{unknown[0]} is no class of Imagenette or Imagewoof; open it as folder:{root}.")
    return open_folder(root, config, num_workers, kind="imagenette", names=NAMES)

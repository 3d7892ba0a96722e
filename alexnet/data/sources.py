"""From what a person gives as DATA to a Source: names of built-in sets, and the recognition of folders."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from alexnet.config import DataConfig
from alexnet.data import shapes
from alexnet.data.digits import open_digits
from alexnet.data.folders import open_folder
from alexnet.data.splits import Source, Split, draw, fingerprint

__all__ = ["BUILT_IN", "KINDS", "Source", "Split", "open_source"]

BUILT_IN = ("digits", "shapes")
KINDS = ("folder",)


def open_source(spec: str, config: DataConfig) -> Source:
    """Open DATA: `digits`, `shapes`, `shapes:SIZE`, a path, or KIND:PATH with a kind of KINDS.

    Of a path, the kind is recognised from the files that are there. `config` gives the held-out share of a set without
    a validation split (val_fraction, split_seed) and the cap on training images. Images are listed, not decoded. Raises
    UserError, with the remedy, for anything that is not a data set.
    """
    source = _open(spec.strip(), config)
    limit = config.max_train_images
    if limit is None or source.train is None or limit >= len(source.train):
        return source
    train = draw(source.train, limit, config.split_seed)
    return replace(source, train=train, fingerprint=fingerprint(source.classes, train, source.val))


def _open(spec: str, config: DataConfig) -> Source:
    if spec == "digits":
        return open_digits()
    if spec == "shapes":
        return shapes.open_shapes()
    path = Path(spec)
    return open_folder(path, config, _num_workers())


def _num_workers() -> int:
    return min(8, os.cpu_count() or 1)

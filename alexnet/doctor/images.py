"""Odd images: unreadable, in odd formats, of odd shapes; on a sample of each split."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data.decode import UnreadableImage
from alexnet.data.splits import Source, Split
from alexnet.data.threads import map_blocks
from alexnet.doctor.findings import Finding, capped, finding
from alexnet.runtime.device import default_num_workers

SAMPLE_SIZE = 400
_TINY_SIDE = 16
_EXTREME_ASPECT = 3.0
_COMMON_SHARE = 0.01
"""Odd shapes in a smaller share of the images are a note."""
_BLOCK_SIZE = 16
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png"},
    "GIF": {".gif"},
    "BMP": {".bmp"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "JPEG2000": {".jp2"},
    "AVIF": {".avif"},
}


def sample(num_images: int, limit: int | None) -> list[int]:
    """Positions of at most `limit` images (None: all), evenly over the split and so over its classes."""
    if limit is None or num_images <= limit:
        return list(range(num_images))
    return np.linspace(0, num_images - 1, limit).astype(int).tolist()


def file_of(path: Path | None, key: str) -> Path | None:
    """The file that a key of a data set in the folder `path` names; None where keys are no paths."""
    if path is None:
        return None
    file = path / key
    return file if os.path.lexists(file) and not file.is_dir() else None


def inspect_images(spec: str, path: Path | None, source: Source, max_unreadable: float, *, full: bool) -> list[Finding]:
    """Decode a sample of each split (with `full`: all) and say what is odd."""
    findings = []
    for split in (source.train, source.val):
        # Images that are in memory already have been decoded.
        if split is not None and len(split) and split.array is None:
            findings += _inspect_split(spec, path, split, max_unreadable, full=full)
    return findings


def _inspect_split(spec: str, path: Path | None, split: Split, max_unreadable: float, *, full: bool) -> list[Finding]:
    positions = sample(len(split), None if full else SAMPLE_SIZE)
    unreadable: list[str] = []
    odd: dict[str, list[str]] = defaultdict(list)
    # Images in shards were looked at when they were prepared, and their keys would be read from there one by one.
    for index in positions if split.storage.shards is None else ():
        for id, row in _oddities(file_of(path, split.keys[index]), split.keys[index]):
            odd[id].append(row)

    def decode(block: range) -> list[str]:
        failures = []
        for position in block:
            index = positions[position]
            try:
                split.read(index)
            except UnreadableImage as error:
                failures.append(f"{split.keys[index]}: {error}")
        return failures

    workers = default_num_workers(images_in_memory=False)
    for _, failures in map_blocks(decode, len(positions), _BLOCK_SIZE, workers):
        unreadable += failures
    findings = []
    of = f"{len(positions)} {split.name} images" + ("" if len(positions) == len(split) else f" (of {len(split)})")
    if unreadable:
        share = len(unreadable) / len(positions)
        too_many = share > max_unreadable
        what = (
            f"{len(unreadable)} of {of} cannot be decoded ({share:.1%}; data.max_unreadable allows "
            f"{max_unreadable:.1%}); {'a run would be refused' if too_many else 'they are left out'}."
        )
        severity = "problem" if too_many else None
        findings.append(finding("unreadable-images", spec, what, capped(unreadable), severity=severity))
    words = {
        "cmyk-images": "are CMYK",
        "deep-images": "have 16 bits or more a channel",
        "wrong-extension": "are named for another format than they have",
        "animated-images": "are animated",
        "tiny-images": f"have a side under {_TINY_SIDE} pixels",
        "extreme-aspect": f"are more than {_EXTREME_ASPECT:g} times as long as wide (or the reverse)",
    }
    for id, rows in odd.items():
        rare = id in ("tiny-images", "extreme-aspect") and len(rows) < _COMMON_SHARE * len(positions)
        what = f"{len(rows)} of {of} {words[id]}."
        findings.append(finding(id, spec, what, capped(rows), severity="note" if rare else None))
    return findings


def _oddities(file: Path | None, key: str) -> list[tuple[str, str]]:
    """(finding, line of evidence) for what an image's header shows; nothing for what cannot be opened."""
    if file is None:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                kind, mode, (width, height) = image.format or "", image.mode, image.size
                frames = getattr(image, "n_frames", 1)
                bits = image.info.get("bits", 8) if kind != "PNG" else 8
    except Exception:  # decoding, which has the last word, says what is wrong with it
        return []
    rows = []
    if mode == "CMYK":
        rows.append(("cmyk-images", key))
    if mode.startswith(("I", "F")) or (isinstance(bits, int) and bits > 8):
        rows.append(("deep-images", f"{key} (mode {mode})"))
    suffix = os.path.splitext(key)[1].lower()
    if kind in _SUFFIXES and suffix not in _SUFFIXES[kind]:
        rows.append(("wrong-extension", f"{key} is {kind}"))
    if frames > 1 and kind != "MPO":
        rows.append(("animated-images", f"{key} ({frames} frames)"))
    if min(width, height) < _TINY_SIDE:
        rows.append(("tiny-images", f"{key} ({width} x {height})"))
    elif max(width, height) > _EXTREME_ASPECT * min(width, height):
        rows.append(("extreme-aspect", f"{key} ({width} x {height})"))
    return rows

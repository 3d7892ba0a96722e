"""`alexnet prepare` from a name or a path to a prepared data set; the steps, in order."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.assembly import finish
from alexnet.data.decode import UnreadableImage
from alexnet.data.downloads import fetch, find_download, verify_archives
from alexnet.data.encoding import Encoding
from alexnet.data.holdout import hold_out
from alexnet.data.originals.listing import Original, OriginalSplit, make_keys
from alexnet.data.originals.recognition import recognize_original
from alexnet.data.preparation import (
    Preparation,
    PrepareOptions,
    Reporter,
    default_images_per_shard,
    difference,
    format_bytes,
    is_same_set,
    plan_split,
)
from alexnet.data.prepared import DESCRIPTION, SPLITS, STATISTICS, WORK, read_description
from alexnet.data.threads import map_blocks
from alexnet.errors import UserError
from alexnet.runtime.files import expanded_path

DEFAULT_SIZE = 256
_MAX_SIZE = 4096
_MAX_HASHED_BYTES = 50 * 10**9
_OURS = (DESCRIPTION, STATISTICS, WORK, *SPLITS)


@dataclass(frozen=True)
class Request:
    """What a person asks for; None leaves a choice to the data."""

    source: str
    folder: Path
    image_size: int | None = None
    quality: int = 95
    encoding: Encoding | None = None
    images_per_shard: int | None = None
    val_fraction: float | None = None
    downloads: Path | None = None
    num_workers: int = 1
    verify: bool = True
    allow_damaged: bool = False
    overwrite: bool = False


def prepare_data_set(request: Request, reporter: Reporter) -> dict[str, Any]:
    """Prepare what the request names; returns the contents of dataset.json.

    Goes on with what is unfinished, and does nothing where the result is there. Raises UserError for what the person
    can mend, RunError when the disk is full.
    """
    folder = request.folder
    _check_options(request)
    with _held(folder):
        source = _locate(request, reporter)
        recognized = recognize_original(
            source, folder / WORK, lambda what: reporter.counter(what, unit="MB", transient=True)
        )
        original = recognized.original
        notes = [*original.notes, *_refuse_damage(original, request.allow_damaged)]
        if request.verify and (request.overwrite or not (folder / DESCRIPTION).is_file()):
            notes += verify_archives(recognized.archives, folder / WORK, reporter, request.allow_damaged)
        _refuse_empty_splits(original, request.source)
        original, split_notes = _with_validation(original, request, reporter)
        notes += split_notes
        options = _options(request, original)
        splits = [(name, split) for name in SPLITS if (split := getattr(original, name)) is not None]
        plan = [plan_split(name, split, original.classes, options.images_per_shard) for name, split in splits]
        preparation = Preparation(folder, original, plan, options, request.num_workers)
        counts = " and ".join(
            f"{len(planned.keys):,} {'training' if planned.name == 'train' else 'validation'} images"
            for planned in plan
        )
        reporter.message(f"{source} is {_described(original.kind)}: {counts} of {len(original.classes):,} classes.")
        for note in notes:
            reporter.message(note)
        if request.quality != options.quality:
            reporter.message(f"--quality has no effect: the images are stored as {options.encoding}.")
        if request.overwrite:
            preparation.replace()
        if (folder / DESCRIPTION).is_file():
            return _already_there(folder, preparation, reporter)
        preparation.claim()
        needed = preparation.check_space()
        reporter.message(f"About {format_bytes(needed)} will be written to {folder}.")
        records = preparation.write(reporter)
        archives = {path.name: path.stat().st_size for path in recognized.archives if path.is_file()}
        facts = {"name": Path(request.source).name or request.source, "kind": original.kind, "archives": archives}
        return finish(preparation, records, source=facts, notes=notes)


def _check_options(request: Request) -> None:
    if request.val_fraction is not None and not 0 < request.val_fraction < 1:
        raise UserError(f"--val-fraction {request.val_fraction:g} must lie between 0 and 1, as in 0.1.")
    if request.image_size is not None and not 1 <= request.image_size <= _MAX_SIZE:
        raise UserError(f"--size {request.image_size} must lie between 1 and {_MAX_SIZE}; ImageNet's usual one is 256.")
    if not request.source.strip():
        raise UserError("SOURCE is empty. Give a file or folder, or the name of a set that can be downloaded.")
    path = expanded_path(request.source)
    if path.exists():
        source, folder = path.resolve(), request.folder.resolve()
        if source == folder or source in folder.parents:
            raise UserError(f"{request.folder} lies in {request.source}, which is read; give a folder outside of it.")


def _options(request: Request, original: Original) -> PrepareOptions:
    size = request.image_size or min(DEFAULT_SIZE, original.image_size or DEFAULT_SIZE)
    # Originals that are pixels would only lose by being made JPEG; they are small.
    encoding = request.encoding or ("raw" if original.kind in ("cifar10", "cifar100") else "jpeg")
    count = request.images_per_shard or default_images_per_shard(encoding, size, request.quality)
    # The quality of JPEG says nothing about the other forms.
    quality = request.quality if encoding == "jpeg" else 95
    return PrepareOptions(size, encoding, quality, count, request.val_fraction)


def _locate(request: Request, reporter: Reporter) -> Path:
    """The path of the source: the one that was given, or where the named data set was downloaded to."""
    path = expanded_path(request.source)
    if path.exists():
        return path
    download = find_download(request.source)
    if download is None:
        raise UserError(
            f"{request.source} does not exist. Give a file or folder, or the name of a set that can be downloaded: "
            "imagenette, imagewoof (each also -320 or -160), tiny-imagenet, cifar10."
        )
    return fetch(download, request.downloads or request.folder.absolute().parent, reporter)


def _refuse_damage(original: Original, allow_damaged: bool) -> list[str]:
    if original.damage and not allow_damaged:
        raise UserError(
            f"{'; '.join(original.damage[:3])}. Download it again (a download that broke off can be taken up: wget "
            "-c, curl -C -), or prepare the images that are whole with --allow-damaged."
        )
    notes = [f"{sentence}; what is before is prepared." for sentence in original.damage]
    if original.refused:
        name, reason = original.refused[0]
        notes.append(
            f"{len(original.refused)} member(s) of archives are left out, the first: {name}: {reason}. No image set "
            "needs such; be wary of where it comes from."
        )
    return notes


def _refuse_empty_splits(original: Original, source: str) -> None:
    for name in SPLITS:
        split = getattr(original, name)
        if split is not None and len(split) == 0:
            raise UserError(
                f"The {name} split of {source} has no images, though there are files for it. Put the images there, or "
                "take those files away to prepare the rest."
            )


def _with_validation(original: Original, request: Request, reporter: Reporter) -> tuple[Original, list[str]]:
    """The data set with a validation split: its own, or a part of each class held out."""
    if original.val is not None or original.train is None:
        ignored = request.val_fraction is not None
        return original, ["The set has validation images; --val-fraction is not used."] if ignored else []
    if original.needs_val is not None and request.val_fraction is None:
        raise UserError(
            f"{original.needs_val} To hold out a part of the training images instead, give --val-fraction 0.1."
        )
    fraction = 0.1 if request.val_fraction is None else request.val_fraction
    train = replace(original.train, keys=make_keys(original.train, original.classes))
    contents = _content_hashes(train, request.num_workers, reporter)
    held_out = hold_out(contents, train.labels, fraction, 0)
    if not held_out.any():
        raise UserError(
            f"{request.source} has only one distinct image in each class, so none can be held out for validation. Add "
            "images, or validation images of their own: train/CLASS/..., val/CLASS/..."
        )
    note = f"The set has no validation images; {int(held_out.sum()):,} ({fraction:g} of each class) are held out."
    train_part, val_part = train.take(np.flatnonzero(~held_out)), train.take(np.flatnonzero(held_out))
    return replace(original, train=train_part, val=val_part), [note]


def _content_hashes(split: OriginalSplit, num_workers: int, reporter: Reporter) -> list[bytes]:
    """A hash of each image's content; of its key where there is so much that reading it twice would take hours."""
    if split.keys is not None and split.num_bytes() > _MAX_HASHED_BYTES:
        return [hashlib.sha256(key.encode()).digest() for key in split.keys]

    def hash_block(block: range) -> list[bytes]:
        hashes = []
        for i in block:
            try:
                data = split.read(i)
                hashes.append(hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest())
            except UnreadableImage:
                hashes.append(hashlib.sha256(f"unreadable:{split.paths[i]}".encode("utf-8", "replace")).digest())
        return hashes

    count = reporter.counter("Looking for copies of images", transient=True)
    hashes: list[bytes] = []
    for block, found in map_blocks(hash_block, len(split), 64, num_workers):
        hashes += found
        count(block.stop, len(split))
    return hashes


def _already_there(folder: Path, preparation: Preparation, reporter: Reporter) -> dict[str, Any]:
    description = read_description(folder)
    before = description.get("made_by", {}).get("identity", {})
    if not is_same_set(before, preparation.identity):
        raise UserError(
            f"{folder} holds a prepared data set ({difference(before, preparation.identity)}). Give another folder, or "
            "--overwrite to replace it."
        )
    shutil.rmtree(folder / WORK, ignore_errors=True)
    reporter.message(f"{folder} holds this data set already, finished.")
    return description


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder for this process alone, with nothing in it but a data set of ours."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder for the prepared data set.")
    known = {*_OURS, ".lock"}
    try:
        foreign = sorted(item.name for item in folder.iterdir() if item.name not in known) if folder.is_dir() else []
        is_ours = any((folder / name).exists() for name in (DESCRIPTION, WORK, ".lock"))
        if foreign or (not is_ours and folder.is_dir() and any(folder.iterdir())):
            there = foreign[0] if foreign else next(folder.iterdir()).name
            raise UserError(f"{folder} is not empty (there is {there}); give a new folder for the prepared data set.")
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror}.") from None
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is preparing {folder}; wait for it or stop it.") from None
        except (ImportError, OSError):  # Windows and some network disks have no flock; there it is not guarded.
            pass
        try:
            yield
        finally:
            _leave(folder)


def _leave(folder: Path) -> None:
    """Take the lock's file away, and the folder where nothing came of it."""
    (folder / ".lock").unlink(missing_ok=True)
    for empty in (folder / WORK, folder):
        with suppress(OSError):
            empty.rmdir()


def _described(kind: str) -> str:
    return {
        "imagenet": "ImageNet, unpacked",
        "imagenet_archives": "ImageNet in the archives of image-net.org",
        "imagenette": "Imagenette or Imagewoof",
        "tiny_imagenet": "Tiny-ImageNet-200",
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "parquet": "a data set in parquet files",
        "webdataset": "a data set in WebDataset shards",
        "list": "a list of images",
    }.get(kind, "a set of class folders")

"""Images as squares of one size, held in memory or decoded when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.data.decode import UnreadableImage
from alexnet.data.resample import cut_crop, cut_square_crop, to_square
from alexnet.data.splits import Split, Storage
from alexnet.data.threads import map_blocks
from alexnet.errors import RunError, UserError

_BLOCK_SIZE = 16
_NAMES_SHOWN = 5
_ANYWHERE = Storage()
_CONTAINER = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Skipped:
    """An image that is left out of a set, and why."""

    key: str
    reason: str


class ImageSet:
    """The readable images of a split as squares.

    labels: (N,) int64; keys: N strings; image_size: side S; skipped: the images left out, in the split's order; array:
    (N, S, S, 3) uint8 with all squares, or None when each is decoded on demand; notes: sentences the person should see;
    storage: of the images, in this set's order.
    """

    def __init__(
        self,
        labels: np.ndarray,
        keys: Sequence[str],
        image_size: int,
        *,
        skipped: Sequence[Skipped] = (),
        array: np.ndarray | None = None,
        read: Callable[[int], np.ndarray] | None = None,
        notes: Sequence[str] = (),
        storage: Storage = _ANYWHERE,
    ) -> None:
        assert (array is None) != (read is None), "an ImageSet has either an array or a way to read"
        self.labels = labels
        self.keys = keys
        self.image_size = image_size
        self.skipped = list(skipped)
        self.array = array
        self.notes = list(notes)
        self.storage = storage
        self._read = read

    def __len__(self) -> int:
        return len(self.labels)

    def square(self, index: int) -> np.ndarray:
        """Image `index` as (S, S, 3) uint8 RGB, from any thread; RunError when it has become unreadable."""
        if self.array is not None:
            return self.array[index]
        return to_square(self._pixels(index), self.image_size)

    def cut(self, index: int, box: np.ndarray, flip: bool, out: np.ndarray) -> None:
        """Write one crop of the square of image `index` into `out` (h, w, 3), as `cut_crop` does; from any thread."""
        if self.array is not None:
            cut_crop(self.array[index], box, flip, out)
        else:
            cut_square_crop(self._pixels(index), self.image_size, box, flip, out)

    def _pixels(self, index: int) -> np.ndarray:
        assert self._read is not None
        try:
            return self._read(index)
        except UnreadableImage as error:
            raise RunError(_no_longer_readable(self.keys[index], str(error))) from None


def load_images(
    split: Split,
    image_size: int,
    *,
    num_workers: int,
    max_unreadable: float,
    memory_limit_bytes: int | None,
    on_progress: Callable[[int, int], None] | None = None,
    known_skipped: Collection[str] | None = None,
) -> ImageSet:
    """Decode every image of `split` once and return the readable ones as squares of side `image_size`.

    The squares are kept in memory where all of them take at most `memory_limit_bytes` (None: half of the memory that is
    free), and otherwise decoded again when asked for; the pixels are the same. num_workers threads decode (0: this
    one). on_progress(done, total) is called in this thread.

    known_skipped: keys of the images that this run left out before (a mapping also gives the reasons). Exactly those
    are left out then; a set on demand is not decoded in advance, and any other image that cannot be read is a RunError.

    Raises UserError when there is no image, none is readable, or the unreadable share exceeds max_unreadable.
    """
    total = len(split)
    if total == 0:
        raise UserError(f"The {split.name} split has no images; add some, or give another data set with --data.")
    limit = free_memory_bytes() // 2 if memory_limit_bytes is None else memory_limit_bytes
    in_memory = total * image_size * image_size * 3 <= limit
    skipped = _known(split, known_skipped)
    if in_memory and split.array is not None and split.array.shape[1:3] == (image_size, image_size) and not skipped:
        if on_progress is not None:
            on_progress(total, total)
        return ImageSet(split.labels, split.keys, image_size, array=split.array)
    array = np.empty((total, image_size, image_size, 3), np.uint8) if in_memory else None
    if in_memory or (known_skipped is None and not split.is_checked):
        skipped = _decode_all(
            split,
            image_size,
            array,
            num_workers,
            None if known_skipped is not None else max_unreadable,
            skipped,
            on_progress,
        )
    return _without_skipped(split, image_size, array, skipped)


def _no_longer_readable(key: str, reason: str) -> str:
    return (
        f"{key} could be read when the run began and no longer can: {reason}. Restore the file, then run the same "
        "command again."
    )


def _known(split: Split, known_skipped: Collection[str] | None) -> dict[int, str]:
    """Positions in the split of the images known to be unreadable, with the reasons."""
    if not known_skipped:
        return {}
    reasons = known_skipped if isinstance(known_skipped, Mapping) else dict.fromkeys(known_skipped, "skipped before")
    return {i: reasons[key] for i, key in enumerate(split.keys) if key in reasons}


def _decode_all(
    split: Split,
    image_size: int,
    array: np.ndarray | None,
    num_workers: int,
    max_unreadable: float | None,
    known: dict[int, str],
    on_progress: Callable[[int, int], None] | None,
) -> dict[int, str]:
    """Decode the whole split, into `array` where there is one; returns the unreadable images' positions and reasons.

    max_unreadable None: nothing but `known` may be unreadable.
    """
    total = len(split)

    def decode(block: range) -> dict[int, str]:
        failures = {}
        for i in block:
            if i in known:
                failures[i] = known[i]
                continue
            try:
                square = to_square(split.read(i), image_size)
            except UnreadableImage as error:
                failures[i] = str(error)
            else:
                if array is not None:
                    array[i] = square
        return failures

    skipped: dict[int, str] = {}
    with closing(map_blocks(decode, total, _BLOCK_SIZE, num_workers)) as results:
        for block, failures in results:
            skipped.update(failures)
            if max_unreadable is None:
                for i in failures.keys() - known.keys():
                    raise RunError(_no_longer_readable(split.keys[i], failures[i]))
            elif len(skipped) > max_unreadable * total:
                raise UserError(_too_many(split, skipped, block.stop, max_unreadable))
            if on_progress is not None:
                on_progress(block.stop, total)
    return skipped


def _too_many(split: Split, skipped: dict[int, str], num_seen: int, max_unreadable: float) -> str:
    names = "; ".join(f"{split.keys[i]} ({reason})" for i, reason in list(skipped.items())[:_NAMES_SHOWN])
    more = "" if len(skipped) <= _NAMES_SHOWN else f"; and {len(skipped) - _NAMES_SHOWN} more"
    return (
        f"{len(skipped)} of the first {num_seen} images of the {split.name} split ({len(split)} in all) cannot be "
        f"read, more than the share of {max_unreadable:g} that data.max_unreadable allows: {names}{more}. Mend or "
        "remove them, or raise data.max_unreadable."
    )


def _without_skipped(split: Split, image_size: int, array: np.ndarray | None, skipped: dict[int, str]) -> ImageSet:
    """The set without the images at the positions in `skipped`; the array is closed up in place."""
    if len(skipped) == len(split):
        raise UserError(
            f"None of the {len(split)} images of the {split.name} split can be read; the first is {split.keys[0]} "
            f"({skipped[0]}). Check that the files are whole images."
        )
    if not skipped:
        read = split.read if array is None else None
        return ImageSet(split.labels, split.keys, image_size, array=array, read=read, storage=split.storage)
    kept = [i for i in range(len(split)) if i not in skipped]
    labels = split.labels[kept]
    keys = [split.keys[i] for i in kept]
    records = [Skipped(split.keys[i], skipped[i]) for i in sorted(skipped)]
    notes = _class_notes(split, labels)
    if array is not None:
        for new, old in enumerate(kept):
            if new != old:
                array[new] = array[old]
        array = array[: len(kept)]
    read = None if array is not None else (lambda i: split.read(kept[i]))
    storage = split.storage.take(np.array(kept))
    return ImageSet(labels, keys, image_size, skipped=records, array=array, read=read, notes=notes, storage=storage)


def _class_notes(split: Split, labels: np.ndarray) -> list[str]:
    lost = np.setdiff1d(split.labels, labels).tolist()
    names = [split.classes[label] if split.classes else f"number {label}" for label in lost]
    return [f"No image of class {name} in the {split.name} split can be read." for name in names]


def free_memory_bytes() -> int:
    """Memory that a process can still take without swapping, with a container's limit taken into account; in bytes."""
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        free = 2**31  # not Unix: rather too little than too much
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass  # not Linux: half of the physical memory is the estimate
    return min([free, *_left_by_groups()])


def _left_by_groups() -> Iterator[int]:
    """What each control group around this process leaves of its limit, where it has one; of Linux, in bytes."""
    kinds = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
    )
    for folder in _group_folders():
        for limit_file, used_file, cached in kinds:
            try:
                limit, used = (int((folder / name).read_text()) for name in (limit_file, used_file))
                fields = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
                # Cached files count as used there, and are given up as soon as memory is short.
                yield max(0, limit - used + int(fields[cached]))
            except (OSError, KeyError, ValueError):
                continue  # no such group to be seen from here, or one without a limit ("max")


def _group_folders() -> set[Path]:
    """Of the groups that this process is in, and of those around them; in a container its own group is the root."""
    folders = {_CONTAINER, _CONTAINER / "memory"}
    try:
        lines = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
    except OSError:
        lines = []  # not Linux
    for _, controllers, path in lines:
        names = [name for name in path.split("/") if name]
        if ".." not in names and (not controllers or "memory" in controllers.split(",")):
            root = _CONTAINER / "memory" if controllers else _CONTAINER
            folders.update(root.joinpath(*names[:depth]) for depth in range(len(names) + 1))
    return folders

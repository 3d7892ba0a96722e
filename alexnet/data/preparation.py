"""From a recognised data set to a prepared one: shard by shard, on all cores, the same bytes every time.

A shard is finished when its record in .progress is there. Killed at any point, the same call does what is not finished
and ends with the same files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
import simplejpeg

from alexnet._version import __version__
from alexnet.data.decode import UnreadableImage
from alexnet.data.encoding import EncodedImage, Encoding, encode_image
from alexnet.data.originals.listing import Original, OriginalSplit, make_keys, shuffled
from alexnet.data.prepared import WORK
from alexnet.data.shard_writer import Sample, ShardRecord, write_shard
from alexnet.data.statistics import sums_of
from alexnet.data.threads import map_blocks
from alexnet.errors import RunError, UserError
from alexnet.runtime.files import write_text

_SHARD_BYTES = 256 * 10**6
_BLOCK_SIZE = 8
_PROBES = 24
_MEMBER_OVERHEAD = 3 * 512 + 512  # two headers, the label, and half of what pads them


class ProgressTask(Protocol):
    """One counted piece of work that is shown."""

    def update(self, done: int, fields: Any = None) -> None:
        """`done` units are through."""

    def finish(self) -> None:
        """The work is over."""


class Reporter(Protocol):
    """Where progress and messages go."""

    def message(self, text: str) -> None:
        """One line for the person."""

    def start(self, description: str, total: int, *, done: int = 0, unit: str = "images") -> ProgressTask:
        """Begin a piece of work of which `done` of `total` units were through before."""
        ...

    def counter(self, description: str, *, unit: str = "images", transient: bool = False) -> OnProgress:
        """A callback (done, total) that shows a piece of work while it is called."""
        ...


OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """What decides the bytes of a prepared data set, besides its images."""

    image_size: int
    encoding: Encoding
    quality: int
    images_per_shard: int
    val_fraction: float | None
    split_seed: int = 0


def default_images_per_shard(encoding: Encoding, image_size: int, quality: int) -> int:
    """So many images that a shard has about 256 MB; a number that follows from the options alone."""
    if encoding == "original":
        num_bytes = 110_000  # the mean of ImageNet
    elif encoding == "raw":
        num_bytes = image_size**2 * 3
    else:
        num_bytes = int(image_size**2 * (0.2 + 0.3 * (quality / 95) ** 4))
    return max(1, int(_SHARD_BYTES / (num_bytes + _MEMBER_OVERHEAD)) // 10 * 10)


@dataclass(eq=False)
class PlannedSplit:
    """A split in the order of its samples."""

    name: str
    split: OriginalSplit
    keys: list[str]
    images_per_shard: int

    @property
    def num_shards(self) -> int:
        """At least one: a split with no image has an empty shard."""
        return max(1, -(-len(self.keys) // self.images_per_shard))

    def images_of(self, shard: int) -> range:
        """The positions of a shard's images."""
        start = shard * self.images_per_shard
        return range(start, min(start + self.images_per_shard, len(self.keys)))


def plan_split(name: str, split: OriginalSplit, classes: tuple[str, ...], images_per_shard: int) -> PlannedSplit:
    """Give each image its key and its place: training images shuffled by their keys, the others sorted by them."""
    keys = list(split.keys) if split.keys is not None else make_keys(split, classes)
    order = shuffled(keys) if name == "train" else np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    return PlannedSplit(name, split.take(order), [keys[i] for i in order.tolist()], images_per_shard)


class Preparation:
    """The writing of one data set into a folder that this process holds."""

    def __init__(
        self, folder: Path, original: Original, plan: list[PlannedSplit], options: PrepareOptions, num_workers: int
    ) -> None:
        self.folder = folder
        self.original = original
        self.plan = plan
        self.options = options
        self.num_workers = num_workers
        self.identity = _identity(original, plan, options)

    def claim(self) -> None:
        """Take up what is there of this data set. Raises UserError for a folder with another one in the making."""
        path = self.folder / WORK / "plan.json"
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            if before != self.identity:
                raise UserError(f"{self.folder} holds an unfinished preparation {difference(before, self.identity)}")
        for torn in self.folder.glob("**/.*.tmp"):
            torn.unlink()
        write_text(path, json.dumps(self.identity, indent=1))

    def check_space(self) -> int:
        """Estimate the bytes that are still to be written; UserError where the disk has less. Returns the estimate."""
        needed = 0
        for planned in self.plan:
            left = [shard for shard in range(planned.num_shards) if self._finished(planned, shard) is None]
            images = sum(len(planned.images_of(shard)) for shard in left)
            needed += int(images * self._mean_bytes(planned) * 1.03) + len(left) * self.options.image_size**2 * 24
        free = shutil.disk_usage(self.folder).free
        if free < needed + 2**20:
            raise UserError(
                f"About {format_bytes(needed)} are needed in {self.folder}, and {format_bytes(free)} are free. Free "
                "some space, give a folder on another disk, or make the images smaller (--size, --quality)."
            )
        return needed

    def write(self, reporter: Reporter) -> dict[str, list[ShardRecord]]:
        """Write every shard that is not finished; the records of all. Raises RunError when the disk is full."""
        records = {}
        for planned in self.plan:
            finished = [self._finished(planned, shard) for shard in range(planned.num_shards)]
            done = sum(len(planned.images_of(shard)) for shard, record in enumerate(finished) if record is not None)
            what = "training" if planned.name == "train" else "validation"
            task = reporter.start(f"Preparing {what} images", len(planned.keys), done=done)
            for shard, record in enumerate(finished):
                if record is None:
                    finished[shard] = self._write_shard(planned, shard, task, done)
                    done += len(planned.images_of(shard))
            task.finish()
            records[planned.name] = [record for record in finished if record is not None]
        return records

    def shard_path(self, split: str, shard: int) -> str:
        """A shard's path below the folder."""
        return f"{split}/{shard:06d}.tar"

    def _record_path(self, split: str, shard: int) -> Path:
        return self.folder / WORK / f"{split}-{shard:06d}.npz"

    def _finished(self, planned: PlannedSplit, shard: int) -> ShardRecord | None:
        record = ShardRecord.load(self._record_path(planned.name, shard))
        if record is None:
            return None
        try:
            size = (self.folder / self.shard_path(planned.name, shard)).stat().st_size
        except OSError:
            return None
        return record if size == record.num_bytes else None

    def _write_shard(self, planned: PlannedSplit, shard: int, task: ProgressTask, done: int) -> ShardRecord:
        images = planned.images_of(shard)
        size = self.options.image_size
        skipped: list[dict[str, str]] = []
        repaired: list[dict[str, str]] = []
        sums = (np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))

        def samples() -> Iterator[Sample]:
            blocks = map_blocks(
                lambda block: self._encode_block(planned, images[block.start : block.stop]),
                len(images),
                _BLOCK_SIZE,
                self.num_workers,
            )
            with closing(blocks):
                for block, (encoded, pixel_sums, product_sums) in blocks:
                    for i, image in zip(images[block.start : block.stop], encoded, strict=True):
                        key, file = planned.keys[i], planned.split.name(i)
                        if isinstance(image, str):
                            skipped.append({"split": planned.name, "key": key, "file": file, "reason": image})
                            continue
                        if image.note is not None:
                            repaired.append({"split": planned.name, "key": key, "file": file, "reason": image.note})
                        yield Sample(key, image.payload, image.extension, int(planned.split.labels[i]))
                    sums[0].__iadd__(pixel_sums)
                    sums[1].__iadd__(product_sums)
                    task.update(done + block.stop)

        try:
            record = write_shard(self.folder / self.shard_path(planned.name, shard), shard, samples())
            record.skipped, record.repaired = skipped, repaired
            if planned.name == "train":
                record.pixel_sums, record.product_sums = sums
            record.save(self._record_path(planned.name, shard))
        except RunError as error:
            if "disk is full" not in str(error):
                raise
            raise RunError(
                f"The disk is full: cannot write {self.folder / self.shard_path(planned.name, shard)}. The finished "
                "shards are kept; free some space and give the same command again, it goes on from there."
            ) from error
        return record

    def _encode_block(
        self, planned: PlannedSplit, images: range
    ) -> tuple[list[EncodedImage | str], np.ndarray | int, np.ndarray | int]:
        """The images, or the reasons why they are left out, and the sums of their pixels."""
        encoded: list[EncodedImage | str] = []
        for i in images:
            try:
                encoded.append(self._encode(planned, i))
            except UnreadableImage as error:
                encoded.append(str(error))
        squares = [image.square for image in encoded if not isinstance(image, str)]
        if planned.name != "train" or not squares:
            return encoded, 0, 0
        return encoded, *sums_of(np.stack(squares))

    def _encode(self, planned: PlannedSplit, i: int) -> EncodedImage:
        options = self.options
        return encode_image(
            planned.split.read(i),
            planned.split.paths[i],
            encoding=options.encoding,
            image_size=options.image_size,
            quality=options.quality,
        )

    def _mean_bytes(self, planned: PlannedSplit) -> float:
        """Bytes of an image in a shard, from a few of them."""
        sizes = []
        for i in range(0, len(planned.keys), max(1, len(planned.keys) // _PROBES)):
            try:
                sizes.append(len(self._encode(planned, i).payload))
            except UnreadableImage:
                continue
        return (sum(sizes) / len(sizes) if sizes else 0) + _MEMBER_OVERHEAD


def format_bytes(count: int) -> str:
    """1.23 GB or 4.5 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """In what a data set that is there differs from what was asked for, and what to do."""
    facts = [
        f"{key} {before.get(key)!r} there, {value!r} now"
        for key, value in now.items()
        if before.get(key) != value and key != "images"
    ]
    if not facts:
        facts = ["of other images, or of files that were changed since"]
    return f"({'; '.join(facts)}). Give the same command to go on with it, another folder, or --overwrite."


def _identity(original: Original, plan: list[PlannedSplit], options: PrepareOptions) -> dict[str, Any]:
    """What the bytes of the result follow from, as far as it can be told without reading the images."""
    digest = hashlib.sha256("\n".join(original.classes).encode("utf-8", "backslashreplace"))
    for planned in plan:
        digest.update(f"\n{planned.name}\n".encode())
        digest.update("\n".join(planned.keys).encode("utf-8", "backslashreplace"))
        digest.update(np.ascontiguousarray(planned.split.labels, "<i8").tobytes())
    return {
        **asdict(options),
        "alexnet": __version__,
        "pillow": PIL.__version__,
        "simplejpeg": getattr(simplejpeg, "__version__", ""),
        "images": digest.hexdigest(),
    }

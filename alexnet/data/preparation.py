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
from alexnet.data.prepared import DESCRIPTION, SPLITS, STATISTICS, WORK
from alexnet.data.shard_writer import Sample, ShardRecord, write_shard
from alexnet.data.statistics import sums_of
from alexnet.data.threads import map_blocks
from alexnet.errors import RunError, UserError
from alexnet.runtime.files import read_json, write_text

_SHARD_BYTES = 256 * 10**6
_BLOCK_SIZE = 8
_PROBES = 24
_VERSIONS = ("alexnet", "pillow", "simplejpeg")
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
        self.pixel_sums = np.zeros((options.image_size, options.image_size, 3), np.int64)
        """Of the training images in finished shards, once they are written."""
        self.product_sums = np.zeros((3, 3), np.int64)

    def replace(self) -> None:
        """Make room for this data set: take another one away, finished or in the making.

        Does nothing where this very one is in the making. Raises UserError, and takes nothing away, where the disk has
        no room for it even then.
        """
        if self._begun() == self.identity and not (self.folder / DESCRIPTION).is_file():
            return
        self.check_space(replacing=True)
        for name in ("plan.json", "*-*.npz"):
            for path in (self.folder / WORK).glob(name):
                path.unlink()
        # Before the shards: without it nobody takes the rest for a data set.
        (self.folder / DESCRIPTION).unlink(missing_ok=True)
        (self.folder / STATISTICS).unlink(missing_ok=True)
        for name in SPLITS:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def claim(self) -> None:
        """Take up what is there of this data set. Raises UserError for a folder with another one in the making."""
        before = self._begun()
        if before is not None and before != self.identity:
            raise UserError(
                f"{self.folder} holds an unfinished preparation ({difference(before, self.identity)}). Go on with it "
                "by the same options and versions, give another folder, or begin anew with --overwrite."
            )
        for torn in self.folder.glob("**/.*.tmp"):
            torn.unlink()
        write_text(self.folder / WORK / "plan.json", json.dumps(self.identity, indent=1))

    def _begun(self) -> dict[str, Any] | None:
        """The identity of the preparation that is under way in the folder."""
        path = self.folder / WORK / "plan.json"
        return read_json(path) if path.is_file() else None

    def check_space(self, *, replacing: bool = False) -> int:
        """Estimate the bytes that are still to be written; UserError where the disk has less. Returns the estimate.

        replacing: nothing is finished yet, and the shards that are there make room.
        """
        needed = 0
        for planned in self.plan:
            shards = range(planned.num_shards)
            left = [shard for shard in shards if replacing or self._finished(planned, shard) is None]
            images = sum(len(planned.images_of(shard)) for shard in left)
            needed += int(images * self._mean_bytes(planned) * 1.03) + len(left) * self.options.image_size**2 * 24
        free = shutil.disk_usage(self.folder).free
        if replacing:
            free += sum(file.stat().st_size for name in SPLITS for file in (self.folder / name).glob("*.tar"))
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
            finished: dict[int, ShardRecord] = {}
            for shard in range(planned.num_shards):
                record = self._finished(planned, shard)
                if record is not None:
                    finished[shard] = self._with_sums_taken(record)
            done = sum(len(planned.images_of(shard)) for shard in finished)
            what = "training" if planned.name == "train" else "validation"
            task = reporter.start(f"Preparing {what} images", len(planned.keys), done=done)
            for shard in range(planned.num_shards):
                if shard not in finished:
                    finished[shard] = self._with_sums_taken(self._write_shard(planned, shard, task, done))
                    done += len(planned.images_of(shard))
            task.finish()
            records[planned.name] = [finished[shard] for shard in range(planned.num_shards)]
        return records

    def forget(self, planned: PlannedSplit) -> None:
        """Have the next call do a split again from its start."""
        for shard in range(planned.num_shards):
            self._record_path(planned.name, shard).unlink(missing_ok=True)

    def _with_sums_taken(self, record: ShardRecord) -> ShardRecord:
        """Add a shard's sums to those of all, and let them go: 1.5 MB a shard and more, of thousands of shards."""
        if record.pixel_sums is not None and record.product_sums is not None:
            self.pixel_sums += record.pixel_sums.astype(np.int64)
            self.product_sums += record.product_sums
            record.pixel_sums = record.product_sums = None
        return record

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
                    np.add(sums[0], pixel_sums, out=sums[0])
                    np.add(sums[1], product_sums, out=sums[1])
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
    """In what a data set that is there differs from what was asked for."""
    facts = [
        f"{key} {before.get(key)!r} there, {value!r} now"
        for key, value in now.items()
        if before.get(key) != value and key != "images"
    ]
    return "; ".join(facts) or "of other images, or of other names or classes"


def is_same_set(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a finished data set is the one that was asked for, with whichever versions it was made."""
    return all(before.get(key) == value for key, value in now.items() if key not in _VERSIONS)


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

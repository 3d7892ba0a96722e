"""Images to look at one after the other: a data set's, with their classes, or files without any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet.config import DataConfig
from alexnet.data.decode import IMAGE_SUFFIXES, UnreadableImage
from alexnet.data.folders import is_class_tree
from alexnet.data.sources import KINDS, open_source, recognize
from alexnet.data.squares import to_square
from alexnet.errors import UserError
from alexnet.evaluation.array_inputs import Layout, ValueRange
from alexnet.evaluation.inputs import ImageInput, file_of_address, items_of, open_inputs
from alexnet.runtime.files import expanded_path

SPLITS = ("train", "val", "all")
UNKNOWN = -1
"""The label of an image whose class is not known."""


@dataclass(frozen=True, eq=False)
class ImageList:
    """N images that are read when their turn comes.

    keys: N names for people; in a data set paths relative to it. splits: of each image, "train", "val" or "". labels:
    (N,) int64, positions in classes, or UNKNOWN. classes and class_names: those of the data set, empty without one.
    given: what opens the list again, None where nothing can (arrays, standard input). notes: sentences that the person
    should see. read(i) returns image i as (H, W, 3) uint8 RGB, from any thread, and raises UnreadableImage.
    """

    keys: Sequence[str]
    splits: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    given: tuple[str, ...] | None
    read: Callable[[int], np.ndarray]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def class_name(self, index: int) -> str | None:
        """What a person calls the class of image `index`; None where it is not known."""
        label = int(self.labels[index])
        return None if label == UNKNOWN else self.class_names[label]

    def take(self, indices: Sequence[int]) -> ImageList:
        """The list with only the images at `indices`, in that order."""
        chosen = list(indices)
        return replace(
            self,
            keys=[self.keys[i] for i in chosen],
            splits=[self.splits[i] for i in chosen],
            labels=self.labels[chosen],
            given=None,
            read=lambda position: self.read(chosen[position]),
        )


def open_images(
    given: ImageInput | Iterable[ImageInput],
    config: DataConfig | None = None,
    split: str | None = None,
    *,
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
) -> ImageList:
    """The images of a data set, or single ones.

    A single name, address, KIND:PATH or folder that is a data set is opened as one, see `open_source`; `config` says
    how it is split (None: as by default) and `split` which part is meant, "train", "val" or "all" (None: all). A folder
    without classes, and everything else that `open_inputs` takes, are images of unknown class; `layout` and
    `value_range` are those of `open_inputs`. Files are not decoded yet. Raises UserError for a data set that cannot be
    opened, for a split that is not there, where there is no image, and for what `open_inputs` refuses.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f"the split is one of {', '.join(SPLITS)}, not {split!r}")
    spec = _path_text(given[0] if isinstance(given, list | tuple) and len(given) == 1 else given)
    if spec is not None and _is_data_set(spec):
        return _of_data_set(spec, config or DataConfig(), split or "all")
    if split is not None:
        raise UserError(f"--split {split} needs a data set; single images have no split")
    return _of_inputs(given, layout, value_range)


def _path_text(item: Any) -> str | None:
    """The text of a path, name or address, of a file's address the path; None for other things."""
    if isinstance(item, os.PathLike):
        return os.fsdecode(item)
    return (file_of_address(item) or item) if isinstance(item, str) else None


def _is_data_set(text: str) -> bool:
    if not text.strip() or "\0" in text or text.lower().startswith("data:"):
        return False
    path = expanded_path(text)
    if os.path.isdir(path):
        return recognize(path) != "folder" or is_class_tree(path)
    if os.path.exists(path):
        return False
    # What is neither there nor named like an image is a name, an address or a mistake, which `open_source` explains.
    return text != "-" and Path(text.partition("?")[0]).suffix.lower() not in IMAGE_SUFFIXES


def _of_data_set(spec: str, config: DataConfig, split: str) -> ImageList:
    source = open_source(spec, config)
    there = {name: part for name, part in (("train", source.train), ("val", source.val)) if part is not None}
    names = [name for name in there if split in (name, "all")]
    parts = [there[name] for name in names]
    if not any(len(part) for part in parts):
        raise UserError(f"{source.name} has no {'' if split == 'all' else f'{split} '}images.")
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def read(index: int) -> np.ndarray:
        part = int(np.searchsorted(starts, index, side="right")) - 1
        return parts[part].read(index - int(starts[part]))

    return ImageList(
        keys=_Joined([part.keys for part in parts]),
        splits=[name for name, part in zip(names, parts, strict=True) for _ in range(len(part))],
        labels=np.concatenate([part.labels for part in parts]),
        classes=source.classes,
        class_names=source.class_names,
        given=(_absolute(spec),),
        read=read,
        notes=source.notes,
    )


class _Joined(Sequence[str]):
    """Several sequences one after the other; a key in shards is read when it is asked for."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part][index - int(self._starts[part])]


def _of_inputs(
    given: ImageInput | Iterable[ImageInput], layout: Layout | None, value_range: ValueRange | None
) -> ImageList:
    texts: list[str | None] = []
    items, is_one = items_of(given)
    images = list(
        open_inputs(
            given if is_one or isinstance(items, Sequence) else _noting(items, texts),
            layout=layout,
            value_range=value_range,
        )
    )
    if isinstance(items, Sequence):
        texts = [_path_text(item) for item in items]
    lasting = all(text is not None and text != "-" for text in texts)
    return ImageList(
        keys=[image.name for image in images],
        splits=[""] * len(images),
        labels=np.full(len(images), UNKNOWN, np.int64),
        classes=(),
        class_names=(),
        given=tuple(_absolute(text) for text in texts if text is not None) if lasting else None,
        read=lambda index: images[index].read(),
    )


def _noting(items: Iterable[Any], texts: list[str | None]) -> Iterator[Any]:
    """The items, which can be had only once; their texts are added to `texts`."""
    for item in items:
        texts.append(_path_text(item))
        yield item


def _absolute(text: str) -> str:
    """Paths written out, so that they are found from another folder; names and addresses as they are."""
    kind, separator, rest = text.partition(":")
    if separator and kind in KINDS and not Path(text).exists() and "://" not in text:
        return f"{kind}:{expanded_path(rest).resolve()}"
    path = expanded_path(text)
    return str(path.resolve()) if path.exists() else text


class Squares(NamedTuple):
    """Some consecutive images of a list as squares of one size, without those that cannot be read."""

    indices: np.ndarray
    """(n,) int64: their positions in the list."""
    pixels: Tensor
    """(n, S, S, 3) uint8 RGB."""


def stream_squares(
    images: ImageList,
    size: int,
    batch_size: int,
    *,
    num_workers: int = 2,
    on_skip: Callable[[str, str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Squares]:
    """All images of the list in order, decoded by threads at most two batches ahead; empty batches are left out.

    on_skip(key, reason) is told of every image that cannot be read; on_progress(images done, images in all). Raises
    UserError when none can be read.
    """
    total, readable, reason = len(images), 0, ""

    def square(index: int) -> np.ndarray | str:
        try:
            return to_square(images.read(index), size)
        except UnreadableImage as error:
            return str(error) or "it cannot be read"

    for start, results in _ahead(square, total, batch_size, num_workers):
        kept = []
        for index, result in enumerate(results, start):
            if not isinstance(result, str):
                kept.append(index)
                continue
            reason = reason or result
            if on_skip is not None:
                on_skip(images.keys[index], result)
        readable += len(kept)
        if kept:
            pixels = np.stack([result for result in results if not isinstance(result, str)])
            yield Squares(np.array(kept, np.int64), torch.from_numpy(pixels))
        if on_progress is not None:
            on_progress(start + len(results), total)
    if not readable:
        if total == 1:
            raise UserError(f"{images.keys[0]} cannot be read: {reason}.")
        raise UserError(f"None of the {total} images can be read; the first is {images.keys[0]} ({reason}).")


def _ahead(
    read: Callable[[int], np.ndarray | str], total: int, batch_size: int, num_workers: int
) -> Iterator[tuple[int, list[np.ndarray | str]]]:
    """(start, results) of batches in order, the next batch being read while one is worked on."""
    starts = range(0, total, batch_size)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        pending: list[tuple[int, list[Future[np.ndarray | str]]]] = []
        try:
            for start in [*starts, None]:
                if start is not None:
                    stop = min(start + batch_size, total)
                    pending.append((start, [pool.submit(read, index) for index in range(start, stop)]))
                if len(pending) == 2 or (start is None and pending):
                    first, futures = pending.pop(0)
                    yield first, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

"""Parquet files as the Hugging Face hub gives them out: a column of images (bytes and path) and one of labels."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet.data.decode import UnreadableImage
from alexnet.data.folders import sort_classes
from alexnet.data.originals.containers import PlainFile
from alexnet.data.originals.devkit import read_names
from alexnet.data.originals.imagenet import open_tree_of_notes
from alexnet.data.originals.listing import Original, OriginalSplit, class_names, wnids_of_labels
from alexnet.errors import RunError, UserError
from alexnet.runtime.files import write_atomically

_IMAGES = ("image", "img", "jpg")
_LABELS = ("label", "labels", "cls", "fine_label", "class")
_SUFFIX = re.compile(r"_(n\d{8})(\.\w+)$")


def find_parquet(folder: Path) -> list[Path]:
    """Parquet files in a folder, or in its folder `data`."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def open_parquet(
    files: Sequence[Path], folder: Path, work: Path, on_progress: Callable[[int, int], None] | None = None
) -> Original:
    """The data set of some files; train, validation or test in a file's name tells the split.

    work: a folder for copies of the images, as large together as the files. on_progress(MB, of all).

    Images without a label (-1, as in the test split of imagenet-1k) are left out. Where every file name holds its wnid,
    as in imagenet-1k, the classes are the wnids; the key is then the original file's name.
    """
    pyarrow = _import_pyarrow()
    sides: dict[str, list[_File]] = {"train": [], "val": [], "test": []}
    sizes = [path.stat().st_size for path in files]
    _check_space(files, work)
    for number, path in enumerate(files, start=1):
        match = re.match(r"(train|validation|valid|val|test)", path.name.lower())
        part = match[1] if match else "train"
        sides["val" if part.startswith("val") else part].append(_File(path, pyarrow, work))
        if on_progress is not None:
            on_progress(sum(sizes[:number]) // 10**6, max(1, sum(sizes) // 10**6))
    notes = []
    if not sides["val"] and sides["test"]:
        sides["val"] = sides["test"]
    elif sides["test"]:
        notes.append("The test files are not used; the validation files are.")
    labels = [label for part in ("train", "val") for file in sides[part] for label in file.labels]
    paths = [path for part in ("train", "val") for file in sides[part] for path in file.paths]
    kept = [i for i, label in enumerate(labels) if int(label) >= 0]
    wnids = wnids_of_labels([labels[i] for i in kept], [_last_wnid(paths[i]) for i in kept])
    class_ids, note = sort_classes(sorted({wnids.get(labels[i], labels[i]) for i in kept}))
    if len(class_ids) < 2:
        raise UserError(
            f"The parquet files in {folder} have labels of {len(class_ids)} classes, and two are needed. Are those of "
            "the training split there?"
        )
    names = read_names([open_tree_of_notes(folder), open_tree_of_notes(folder.parent)])
    for number, name in enumerate(_feature_names([file for part in sides.values() for file in part])):
        names.setdefault(wnids.get(str(number), str(number)), name)
    label_of = {class_id: label for label, class_id in enumerate(class_ids)}
    splits = [_split(sides[part], wnids, label_of) if sides[part] else None for part in ("train", "val")]
    return Original(
        folder.resolve().name,
        "parquet",
        tuple(class_ids),
        tuple(class_names(class_ids, names)),
        splits[0],
        splits[1],
        notes=[*notes, *([note] if note else [])],
    )


def _check_space(files: Sequence[Path], work: Path) -> None:
    needed = sum(path.stat().st_size for path in files if not _copy_of(path, work).is_file())
    folder = next(folder for folder in (work, *work.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The images of parquet files are copied to {work} until the end, which needs {needed / 1e9:.2f} GB, and "
            f"{free / 1e9:.2f} GB are free. Free some space, or give a folder on another disk."
        )


def _copy_of(path: Path, work: Path) -> Path:
    """Where the images of a file are copied to; another place when the file was changed."""
    return work / f"{path.stem}-{path.stat().st_mtime_ns:x}.images"


class _File:
    """One parquet file: labels and names in memory.

    An image cannot be read from a parquet file without the hundred others of its row group, so that the images are
    copied once, one after the other, to a file in `work`; a copy that is there is used again.
    """

    def __init__(self, path: Path, pyarrow: Any, work: Path) -> None:
        self.path = path
        self.num_bytes = path.stat().st_size
        self._copy = _copy_of(path, work)
        columns: list[str] = []
        try:
            parquet = pyarrow.ParquetFile(path)
            columns = parquet.schema_arrow.names
            image = next(name for name in _IMAGES if name in columns)
            self.label_column = next(name for name in _LABELS if name in columns)
            table = parquet.read(columns=[self.label_column, f"{image}.path"])
            self.metadata = parquet.schema_arrow.metadata or {}
            self.labels = [str(-1 if value is None else value) for value in table.column(self.label_column).to_pylist()]
            self.paths = [
                str((item or {}).get("path") or f"{path.stem}_row_{row:08d}.jpg")
                for row, item in enumerate(table.column(image).to_pylist())
            ]
            self._offsets = self._offsets_of_copy()
            if self._offsets is None:
                write_atomically(self._copy, lambda file: self._copy_images(parquet, image, file), self.num_bytes)
        except StopIteration:
            raise UserError(
                f"{path} has the columns {', '.join(columns)}; an image column ({', '.join(_IMAGES)}) and a label "
                f"column ({', '.join(_LABELS)}) were expected."
            ) from None
        except (UserError, RunError):
            raise
        except Exception as error:  # pyarrow raises errors of many kinds for a damaged file
            raise UserError(f"{path} cannot be read as a parquet file ({error}). Download it again.") from None
        self._content = PlainFile(self._copy)

    def read(self, row: int) -> bytes:
        """The image of a row."""
        assert self._offsets is not None
        start, stop = self._offsets[row : row + 2].tolist()
        if start == stop:
            raise UnreadableImage("the row has no image")
        return self._content.read(start, stop - start)

    def _copy_images(self, parquet: Any, image: str, file: BinaryIO) -> None:
        sizes = [0]
        for batch in parquet.iter_batches(64, columns=[f"{image}.bytes"]):
            for item in batch.column(0).to_pylist():
                data = item.get("bytes") if isinstance(item, dict) else item
                sizes.append(len(data) if isinstance(data, bytes) else 0)
                file.write(data if isinstance(data, bytes) else b"")
        self._offsets = np.cumsum(np.array(sizes, np.int64))
        # The offsets stand at the end, so that the copy is one file.
        file.write(self._offsets.astype("<i8").tobytes())

    def _offsets_of_copy(self) -> np.ndarray | None:
        if not self._copy.is_file():
            return None
        length = 8 * (len(self.labels) + 1)
        file = PlainFile(self._copy)
        offsets = np.frombuffer(file.read(max(0, file.size - length), length), "<i8")
        return offsets if len(offsets) == len(self.labels) + 1 and offsets[-1] == file.size - length else None


def _split(files: Sequence[_File], wnids: dict[str, str], label_of: dict[str, int]) -> OriginalSplit | None:
    rows = [(file, row) for file in files for row, label in enumerate(file.labels) if int(label) >= 0]
    if not rows:
        return None
    labels = [label_of[wnids.get(file.labels[row], file.labels[row])] for file, row in rows]
    # imagenet-1k adds the wnid to the original name: n01440764_18_n01440764.JPEG.
    paths = [_SUFFIX.sub(r"\2", file.paths[row]) if wnids else file.paths[row] for file, row in rows]
    return OriginalSplit(
        np.array(labels, np.int64),
        paths,
        lambda i: f"{rows[i][0].path.name}: row {rows[i][1]} ({rows[i][0].paths[rows[i][1]]})",
        lambda i: rows[i][0].read(rows[i][1]),
        lambda: sum(file.num_bytes for file in files),
    )


def _last_wnid(path: str) -> str:
    found = re.findall(r"n\d{8}", path)
    return found[-1] if found else ""


def _feature_names(files: Sequence[_File]) -> list[str]:
    """The class names that the hub's library keeps in the file's metadata."""
    for file in files:
        try:
            info = json.loads(file.metadata[b"huggingface"])["info"]["features"][file.label_column]
            return [str(name) for name in info["names"]]
        except (KeyError, ValueError, TypeError):
            continue
    return []


def _import_pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Reading parquet files needs pyarrow, which is not installed: pip install 'alexnet[parquet]'"
        ) from None
    return pyarrow.parquet

"""Files of features with everything beside them: .npz for NumPy, .parquet for tables; written row by row."""

from __future__ import annotations

import json
import math
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from alexnet.errors import RunError, UserError
from alexnet.evaluation.features import Precision
from alexnet.evaluation.image_list import UNKNOWN
from alexnet.runtime.files import write_atomically

FORMAT = "alexnet-features"
FORMAT_VERSION = 1
SUFFIXES = (".npz", ".parquet")
_COPY_BYTES = 2**20
_MOST_PACKED = 200
"""How many times as large as the file its arrays may become; rows that are mostly zeros pack well."""


class FeatureRows(NamedTuple):
    """Some images with their features; of equal lengths."""

    values: np.ndarray
    """(n, D) float32."""
    keys: list[str]
    splits: list[str]
    labels: np.ndarray
    """(n,) int64; UNKNOWN (-1) where the class is not known."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The features of N images, (N, D), row by row with their names and classes; `about` says where they are from.

    values may be mapped from a file. labels are positions in classes, -1 where the class is not known. about: layer,
    shape (of one image's outputs before they were flattened), views, model, network (digest of its weights), images
    (what was given), preprocessing sizes.
    """

    values: np.ndarray
    keys: list[str]
    splits: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.values)

    def class_name(self, row: int) -> str | None:
        """What a person calls the class of a row; None where it is not known."""
        label = int(self.labels[row])
        return None if label == UNKNOWN else self.class_names[label]


def check_path(path: Path) -> None:
    """Raises UserError for a file that features cannot be written to, before the work has begun."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"features are written as .npz or .parquet, not as {path.name!r}; name the file accordingly")
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; give the path of a file")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_table(
    path: Path,
    rows: Iterable[FeatureRows],
    *,
    classes: tuple[str, ...],
    class_names: tuple[str, ...],
    about: dict[str, Any],
    precision: Precision = "float32",
) -> int:
    """Write features as they come, and return the number of rows; the file appears complete or not at all.

    Names and labels are held in memory, features a batch at a time. Raises RunError for values that do not fit
    `precision`, and when the disk is full.
    """
    check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT, "format_version": FORMAT_VERSION, **about}
    about |= {"classes": list(classes), "class_names": list(class_names)}
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_npz
    return write(path, _checked(rows, precision), about, precision)


def read_table(path: Path) -> FeatureTable:
    """Read what `write_table` wrote; the features of a .npz file are mapped. Raises UserError for another file."""
    try:
        return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_npz(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, ArithmeticError, MemoryError),
        *(RecursionError, NotImplementedError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    ) as error:
        raise UserError(f"{path} is not a file of features, or is damaged ({error}).") from None


def is_table(path: Path) -> bool:
    """Whether a path is named like a file of features, and is no folder; `read_table` says where it is not there."""
    return path.suffix.lower() in SUFFIXES and (path.is_file() or not path.exists())


def _checked(rows: Iterable[FeatureRows], precision: Precision) -> Iterator[FeatureRows]:
    done = 0
    for batch in rows:
        with np.errstate(over="ignore"):
            values = batch.values.astype(precision)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            reason = "are not finite"
            if np.isfinite(batch.values[bad[0]]).all():
                reason = f"are too large for {precision}; use --precision float32"
            raise RunError(f"the features of {batch.keys[bad[0]]} {reason}")
        done += len(values)
        yield batch._replace(values=values)
    if not done:
        raise UserError("there are no images to write features of")


def _write_npz(path: Path, rows: Iterator[FeatureRows], about: dict[str, Any], precision: Precision) -> int:
    # The header of an array says how many rows follow, and that is known when all are there.
    keys: list[str] = []
    splits: list[str] = []
    labels: list[np.ndarray] = []
    width = 0
    with tempfile.TemporaryFile(dir=path.parent) as values:
        for batch in rows:
            try:
                values.write(np.ascontiguousarray(batch.values).tobytes())
            except OSError as error:
                raise RunError(f"Cannot write {path}: {error.strerror}; nothing was kept of it.") from None
            width = batch.values.shape[1]
            keys += batch.keys
            splits += batch.splits
            labels.append(batch.labels)

        def write(file: BinaryIO) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                with archive.open(zipfile.ZipInfo("features.npy"), "w", force_zip64=True) as member:
                    descr = np.lib.format.dtype_to_descr(np.dtype(precision))
                    header = {"descr": descr, "fortran_order": False, "shape": (len(keys), width)}
                    np.lib.format.write_array_header_1_0(member, header)
                    values.seek(0)
                    shutil.copyfileobj(values, member, _COPY_BYTES)
                arrays = {
                    "keys": np.array(keys, np.str_),
                    "splits": np.array(splits, np.str_),
                    "labels": np.concatenate(labels),
                    "classes": np.array(about["classes"], np.str_),
                    "class_names": np.array(about["class_names"], np.str_),
                    "about": np.array(json.dumps(about)),
                }
                for name, array in arrays.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)

        write_atomically(path, write, values.tell())
    return len(keys)


def _read_npz(path: Path) -> FeatureTable:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST_PACKED * path.stat().st_size:
            raise ValueError(f"unpacked it would be more than {_MOST_PACKED} times as large")
    # Opened here: numpy would leave a damaged file open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        if "about" not in file or "features" not in file:
            raise ValueError("it has no arrays features and about")
        about = _check_about(json.loads(str(file["about"])))
        keys, splits, labels = file["keys"].tolist(), file["splits"].tolist(), file["labels"]
    return _table(_mapped(path, "features.npy"), keys, splits, labels, about)


def _mapped(path: Path, name: str) -> np.ndarray:
    """An array of an uncompressed .npz file, mapped into memory: what is not looked at is not read."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            with archive.open(member) as packed:
                return np.lib.format.read_array(packed, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # the lengths of the name and of the extra field end the local header
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:  # addresses in memory: mapped, the file would say what is read from where
            raise ValueError("its features are objects")
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError("its features are cut off")
        # Copy on write, since torch warns of memory that it must not write to.
        return np.memmap(path, dtype, "c", file.tell(), shape)


def _write_parquet(path: Path, rows: Iterator[FeatureRows], about: dict[str, Any], precision: Precision) -> int:
    pyarrow, parquet = _pyarrow()
    first = next(rows)
    width = first.values.shape[1]
    number = pyarrow.float16() if precision == "float16" else pyarrow.float32()
    strings = pyarrow.string()
    fields = [("key", strings), ("split", strings), ("label", pyarrow.int64()), ("class", strings)]
    fields += [("class_name", strings), ("features", pyarrow.list_(number, width))]
    schema = pyarrow.schema(fields, metadata={FORMAT: json.dumps(about)})
    count = 0

    def write(file: BinaryIO) -> None:
        nonlocal count
        with parquet.ParquetWriter(file, schema) as writer:
            for batch in chain([first], rows):
                known = [None if label == UNKNOWN else int(label) for label in batch.labels]
                flat = pyarrow.array(np.ascontiguousarray(batch.values).ravel())
                columns = [
                    batch.keys,
                    batch.splits,
                    known,
                    [None if label is None else about["classes"][label] for label in known],
                    [None if label is None else about["class_names"][label] for label in known],
                    pyarrow.FixedSizeListArray.from_arrays(flat, width),
                ]
                arrays = [
                    pyarrow.array(column, field.type) for column, field in zip(columns[:-1], schema, strict=False)
                ]
                writer.write_table(pyarrow.Table.from_arrays([*arrays, columns[-1]], schema=schema))
                count += len(batch.keys)

    write_atomically(path, write)
    return count


def _read_parquet(path: Path) -> FeatureTable:
    pyarrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from None
    about = _check_about(json.loads((table.schema.metadata or {})[FORMAT.encode()]))
    column = table.column("features")
    width = column.type.list_size
    values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    labels = table.column("label").fill_null(UNKNOWN).to_numpy()
    keys, splits = table.column("key").to_pylist(), table.column("split").to_pylist()
    return _table(values.reshape(-1, width), keys, splits, labels, about)


def _check_about(about: dict[str, Any]) -> dict[str, Any]:
    if about.get("format") != FORMAT or about.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"it does not say format = {FORMAT}, version {FORMAT_VERSION}")
    return about


def _table(
    values: np.ndarray, keys: list[str], splits: list[str], labels: np.ndarray, about: dict[str, Any]
) -> FeatureTable:
    if values.ndim != 2 or values.dtype not in (np.float16, np.float32):
        raise ValueError(f"its features are {values.ndim}-dimensional, of the type {values.dtype}")
    if labels.dtype.kind != "i":
        raise ValueError(f"its labels are of the type {labels.dtype}")
    if not len(values) == len(keys) == len(splits) == len(labels):
        raise ValueError("its columns have different lengths")
    classes, class_names = tuple(about["classes"]), tuple(about["class_names"])
    if len(classes) != len(class_names) or not all(UNKNOWN <= label < len(classes) for label in np.unique(labels)):
        raise ValueError("its labels are not those of its classes")
    return FeatureTable(values, keys, splits, labels, classes, class_names, about)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "parquet files need pyarrow: pip install 'alexnet[parquet]', or write features to a .npz file"
        ) from None
    return pyarrow, parquet

"""CIFAR-10's original files, python or binary version; for `alexnet prepare` those of CIFAR-100, too.

The python version's files are pickles. A pickle is a program; these are read by an unpickler that can build lists,
dictionaries, strings, numbers and arrays of bytes, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.splits import Source, Split, build_source
from alexnet.errors import UserError

FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
_TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST_FILE = "test_batch"
_SIDE = 32
_NUM_VALUES = _SIDE * _SIDE * 3
_PUBLISHED = {"train": 50_000, "test": 10_000}


def find_cifar10(path: Path) -> Path | None:
    """The folder with CIFAR-10's files: `path` itself or the one of the original name in it; None without one."""
    for folder in (path, *(path / name for name in FOLDERS)):
        if any(
            (folder / f"{file}{suffix}").is_file() for file in (*_TRAIN_FILES, _TEST_FILE) for suffix in ("", ".bin")
        ):
            return folder
    return None


def open_cifar10(folder: Path, read_bytes: ReadBytes = Path.read_bytes) -> Source:
    """50,000 training images, and the 10,000 test images as validation: 32 x 32, in memory, classes in their own order.

    Origin: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. read_bytes gives the content of
    `folder`/FILE where that is not on the disk but in an archive; it raises FileNotFoundError. Raises UserError for a
    file that is missing, damaged, or not what it should be.
    """
    is_binary = not _exists(folder / _TEST_FILE, read_bytes) and _exists(folder / f"{_TEST_FILE}.bin", read_bytes)
    read_names = _read_names_text if is_binary else _read_names
    classes = read_names(folder / ("batches.meta.txt" if is_binary else "batches.meta"), read_bytes)
    read = _read_binary if is_binary else _read_python
    suffix = ".bin" if is_binary else ""
    parts = {
        "train": [folder / f"{file}{suffix}" for file in _TRAIN_FILES],
        "test": [folder / f"{_TEST_FILE}{suffix}"],
    }
    return _build("cifar10", folder, classes, parts, read, read_bytes)


def open_cifar100(folder: Path, read_bytes: ReadBytes = Path.read_bytes) -> Source:
    """CIFAR-100's python version with its 100 fine classes; see open_cifar10."""
    classes = _read_names(folder / "meta", read_bytes, b"fine_label_names")
    parts = {name: [folder / name] for name in ("train", "test")}
    return _build("cifar100", folder, classes, parts, partial(_read_python, key=b"fine_labels"), read_bytes)


def _build(
    name: str,
    folder: Path,
    classes: tuple[str, ...],
    parts: dict[str, list[Path]],
    read: Callable[[Path, ReadBytes], _Batch],
    read_bytes: ReadBytes,
) -> Source:
    notes: list[str] = []
    splits = []
    for part, files in parts.items():
        array, labels = _read_files(files, read, len(classes), read_bytes)
        if len(labels) != _PUBLISHED[part]:
            notes.append(f"{folder} has {len(labels):,} {part} images; the published set has {_PUBLISHED[part]:,}.")
        # The published test set takes the place of the validation set; its keys keep its own name.
        split_name = "train" if part == "train" else "val"
        splits.append(Split(split_name, labels, [f"{part}/{i}" for i in range(len(labels))], array.__getitem__, array))
    return build_source(
        name=name,
        kind=name,
        classes=classes,
        class_names=classes,
        train=splits[0],
        val=splits[1],
        notes=notes,
    )


ReadBytes = Callable[[Path], bytes]
_Batch = tuple[np.ndarray, np.ndarray]  # pixels (N, 3072) uint8, the red plane first; labels (N,) int64


def _read_files(
    paths: list[Path], read: Callable[[Path, ReadBytes], _Batch], num_classes: int, read_bytes: ReadBytes
) -> _Batch:
    """All files as one (N, 32, 32, 3) array and (N,) labels; the array is allocated once, files are copied into it."""
    for path in paths:
        if not _exists(path, read_bytes):
            raise _missing(path)
    array, labels = np.empty((0, _SIDE, _SIDE, 3), np.uint8), np.empty(0, np.int64)
    filled = 0
    for path in paths:
        flat, batch_labels = read(path, read_bytes)
        if len(batch_labels) and not 0 <= batch_labels.min() <= batch_labels.max() < num_classes:
            raise _damaged(path, f"its labels go from {batch_labels.min()} to {batch_labels.max()}")
        count = len(batch_labels)
        if filled + count > len(array):  # the first file sets the size; unequal files make it grow
            capacity = max(filled + count, count * len(paths))
            array, labels = _grown(array, filled, capacity), _grown(labels, filled, capacity)
        array[filled : filled + count] = flat.reshape(count, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        labels[filled : filled + count] = batch_labels
        filled += count
    return array[:filled], labels[:filled]


def _grown(array: np.ndarray, filled: int, capacity: int) -> np.ndarray:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[:filled] = array[:filled]
    return larger


def _read_python(path: Path, read_bytes: ReadBytes, key: bytes = b"labels") -> _Batch:
    content = _unpickle(path, read_bytes)
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no dictionary")
    if key not in content and b"fine_labels" in content:
        raise UserError(f"{path} is of CIFAR-100; prepare it: alexnet prepare {path.parent} FOLDER")
    flat, labels = content.get(b"data"), content.get(key)
    if not isinstance(flat, np.ndarray) or flat.shape[1:] != (_NUM_VALUES,):
        raise _damaged(path, f"its data are not N x {_NUM_VALUES} bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _damaged(path, "its labels are not a list of whole numbers")
    if len(labels) != len(flat):
        raise _damaged(path, f"it has {len(flat)} images and {len(labels)} labels")
    try:
        return flat, np.array(labels, np.int64)
    except OverflowError:
        raise _damaged(path, "a label is out of range") from None


def _read_binary(path: Path, read_bytes: ReadBytes) -> _Batch:
    content = np.frombuffer(_content(path, read_bytes), np.uint8)
    if content.size == 0 or content.size % (_NUM_VALUES + 1):
        raise _damaged(path, f"its {content.size} bytes are no whole number of records of {_NUM_VALUES + 1}")
    records = content.reshape(-1, _NUM_VALUES + 1)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_names(path: Path, read_bytes: ReadBytes, key: bytes = b"label_names") -> tuple[str, ...]:
    content = _unpickle(path, read_bytes)
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise _damaged(path, f"it has no {key.decode()}")
    return tuple(name.decode("utf-8", "backslashreplace") for name in names)


def _read_names_text(path: Path, read_bytes: ReadBytes) -> tuple[str, ...]:
    names = tuple(_content(path, read_bytes).decode("utf-8", "backslashreplace").split())
    if not names:
        raise _damaged(path, "it is empty")
    return names


def _exists(path: Path, read_bytes: ReadBytes) -> bool:
    if read_bytes is Path.read_bytes:
        return path.is_file()
    try:
        read_bytes(path)
    except OSError:
        return False
    return True


def _content(path: Path, read_bytes: ReadBytes) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise _damaged(path, (error.strerror or str(error)).lower()) from None


def _missing(path: Path) -> UserError:
    return UserError(f"CIFAR's file {path} is missing; unpack the whole archive into {path.parent}.")


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a whole file of CIFAR: {reason}. Download the archive again and unpack it.")


class _PickledDtype:
    """Stands for numpy.dtype while unpickling; only unsigned bytes are accepted."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        if name not in (b"u1", "u1", b"uint8", "uint8"):
            raise pickle.UnpicklingError(f"an array of type {name!r}")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like mean nothing for bytes."""


class _PickledArray:
    """Stands for numpy.ndarray while unpickling, so that no code of NumPy sees the file's state unchecked."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _PickledDtype) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array that is not of bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


def _reconstruct(kind: Any, *_: Any) -> _PickledArray:
    if kind is not _PickledArray:
        raise pickle.UnpicklingError("an array of an unknown kind")
    return _PickledArray()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in the old protocols: _codecs.encode(text, "latin1")."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin1")


class _DataUnpickler(pickle._Unpickler):
    """Builds plain data and arrays of bytes; any other name that a pickle asks for is refused before it is imported.

    The unpickler in Python, as few bytes bring the one in C to ask for all of the memory (a memo of 2**31 places).
    """

    _ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no data file needs and which could run code"
            )
        return self._ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def _unpickle(path: Path, read_bytes: ReadBytes) -> Any:
    data = _content(path, read_bytes)
    try:
        content = _DataUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, str(error) or type(error).__name__) from None
    if isinstance(content, dict):
        return {key: value.array if isinstance(value, _PickledArray) else value for key, value in content.items()}
    return content

"""The pickles in old .npy files, read without running anything: dicts, lists, text, numbers and arrays of numbers.

A pickle is a small program that may call any function of Python. This reader has a list of the few names that an array
and a dictionary are made with, most of them its own stand-ins, and refuses every other name.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

_MOST_STEPS = 100_000
_MOST_VALUES, _DEEPEST = 100_000, 8
_DTYPE = re.compile(r"[<>|=]?(f[248]|i[1248]|u[1248]|b1|O8?)")


class PlainPickleError(ValueError):
    """A pickle that holds more than plain data, or is damaged; str() says what."""


def load_plain(file: BinaryIO, num_bytes: int) -> Any:
    """The object pickled at the file's position, of at most `num_bytes`; byte strings of Python 2 stay bytes.

    Raises PlainPickleError for anything that is not plain data.
    """
    try:
        return _as_plain(_Unpickler(_Limited(file, num_bytes), encoding="bytes").load())
    except PlainPickleError:
        raise
    except Exception as error:  # a damaged pickle can fail in any step
        raise PlainPickleError(f"it is damaged ({type(error).__name__})") from None


class _Limited:
    """A file that gives no more than it has, whatever length a pickle asks for, and counts the steps."""

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file = file
        self._left = num_bytes
        self._steps = _MOST_STEPS

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        self._count()
        data = self._file.read(max(0, min(size, self._left)))
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        """A line of at most 10,000 bytes: a name or a number."""
        self._count()
        line = self._file.readline(min(10_000, self._left))
        self._left -= len(line)
        return line

    def _count(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise PlainPickleError(f"it has more than {_MOST_STEPS:,} parts")


class _Dtype:
    """A kind of number, as numpy pickles it: dtype("f4", 0, 1), then a tuple with the order of bytes."""

    def __init__(self, name: Any, *_: Any) -> None:
        text = _text(name)
        if not _DTYPE.fullmatch(text):
            raise PlainPickleError(f"it has an array of {text[:20]!r}, which are no plain numbers")
        self.code, self.order = text.lstrip("<>|="), "<"

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        self.order = order if order in "<>" else "<"


class _Array:
    """An array, as numpy pickles it: an empty one, then (version, shape, dtype, is_fortran, data)."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if dtype.code.startswith("O"):
            if tuple(shape) != () or not isinstance(data, list) or len(data) != 1:
                raise PlainPickleError("it has an array of objects")
            self.value = data[0]
            return
        raw = data.encode("latin1") if isinstance(data, str) else data
        numbers = np.dtype(dtype.order + dtype.code)
        if math.prod(shape) * numbers.itemsize != len(raw) or min(shape, default=1) < 0 or len(shape) > 8:
            raise PlainPickleError(f"it has an array whose {len(raw):,} bytes are not those of its shape")
        self.value = np.frombuffer(raw, numbers).reshape(shape, order="F" if is_fortran else "C")


class _PlainDict(dict[Any, Any]):
    """A dictionary whose keys are text or numbers: to hash tuples in tuples can take for ever."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        for key, value in items:  # as Python 2 pickled an OrderedDict
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes | int | float):
            raise PlainPickleError(f"it has a {type(key).__name__} for the name of something")
        super().__setitem__(key, value)


def _encode(text: str, _: Any = None) -> bytes:
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): _PlainDict,
    ("_codecs", "encode"): _encode,
}


def _load_empty_dict(unpickler: Any) -> None:
    unpickler.append(_PlainDict())


def _load_dict(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    unpickler.append(_PlainDict(zip(items[::2], items[1::2], strict=True)))


# The unpickler in Python, not the one in C: its table of repeated objects is a dict, which no index can make huge.
class _Unpickler(pickle._Unpickler):  # type: ignore[attr-defined, name-defined]
    dispatch: ClassVar[
        dict[int, Callable[..., Any]]
    ] = {  # sets and frozensets are left out, since plain data have none and they hash what they hold
        code: read
        for code, read in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined]
        if bytes([code]) not in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)
    }

    dispatch[pickle.EMPTY_DICT[0]] = _load_empty_dict
    dispatch[pickle.DICT[0]] = _load_dict

    def find_class(self, module: str, name: str) -> Any:
        """Our stand-in for a name. Raises PlainPickleError for any name that is not in the list."""
        known = _KNOWN.get((module, name))
        if known is None:
            raise PlainPickleError(f"it asks for {module}.{name}, and plain data never do")
        return known


def _as_plain(root: Any) -> Any:
    """The value with arrays in the place of what they were pickled as, and text as text."""
    left = _MOST_VALUES

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _DEEPEST:  # a few lists that hold each other can stand for any number
            raise PlainPickleError("it has too many values in each other")
        if isinstance(value, _Array):
            return plain(value.value, depth + 1)
        if isinstance(value, dict):
            return {_text(key): plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, depth + 1) for item in value]
        return value

    return plain(root, 0)


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)

"""The wire format of Protocol Buffers, as far as reading takes it: fields by number, nothing copied, nothing trusted.

Source: protobuf.dev/programming-guides/encoding. A message is a sequence of fields, each a key (number and wire type)
and a value. Every length is compared with what is left of the enclosing message, so a file cannot ask for more memory
than it has bytes; the number of fields read from a file is limited.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 100_000
"""Of one file. A network of Caffe has some thousand; numbers that are not packed count one each."""


class WireError(ValueError):
    """Bytes that are no message; str() says why."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    kind: int
    """VARINT, FIXED64, BYTES or FIXED32."""
    value: int | memoryview
    """An int for VARINT, else the bytes where they lie."""

    def bytes(self) -> memoryview:
        """The value of a field of bytes, text, packed numbers or a message. Raises WireError for another kind."""
        if self.kind != BYTES or isinstance(self.value, int):
            raise WireError(f"field {self.number} should hold bytes")
        return self.value

    def text(self) -> str:
        """The value as UTF-8 text. Raises WireError for another kind; bytes that are no text become "?"."""
        return bytes(self.bytes()[:1000]).decode("utf-8", "replace").replace("\ufffd", "?")

    def integer(self) -> int:
        """The value of an integer, enumeration or bool, signed, of 64 bits. Raises WireError for another kind."""
        if not isinstance(self.value, int):
            raise WireError(f"field {self.number} should hold an integer")
        return self.value - 2**64 if self.value >= 2**63 else self.value

    def floats(self, dtype: str = "<f4") -> np.ndarray:
        """The numbers of a float (or "<f8": double) field, packed or one by itself: (n,), where they lie."""
        width = np.dtype(dtype).itemsize
        if isinstance(self.value, int) or (self.kind != BYTES and self.kind != {4: FIXED32, 8: FIXED64}[width]):
            raise WireError(f"field {self.number} should hold numbers of {width} bytes")
        if len(self.value) % width:
            raise WireError(f"field {self.number} has {len(self.value)} bytes, which are no numbers of {width}")
        return np.frombuffer(self.value, dtype=dtype)

    def decimals(self) -> list[float]:
        """The values of a float field, each as the shortest decimal that stands for it: 1e-4, not 9.9999997e-05."""
        values = self.floats()
        if len(values) > 1000:
            raise WireError(f"field {self.number} should hold a few numbers, and has {len(values):,}")
        return [float(str(value)) for value in values]


class WireReader:
    """Reads messages of one file; keeps count of the fields."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def fields(self, message: memoryview) -> Iterator[Field]:
        """The fields of a message in order. Raises WireError where the bytes are none."""
        position = 0
        while position < len(message):
            self._left -= 1
            if self._left < 0:
                raise WireError(f"it has more than {_MOST_FIELDS:,} fields")
            key, position = _varint(message, position)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise WireError("there is no field 0")
            if kind == VARINT:
                value, position = _varint(message, position)
                yield Field(number, kind, value)
                continue
            if kind == BYTES:
                length, position = _varint(message, position)
            elif kind in (FIXED32, FIXED64):
                length = 4 if kind == FIXED32 else 8
            else:
                raise WireError(f"field {number} has wire type {kind}, which is not in use")
            if length > len(message) - position:
                raise WireError(
                    f"field {number} should have {length:,} bytes, and {len(message) - position:,} are left"
                )
            yield Field(number, kind, message[position : position + length])
            position += length

    def integers(self, field: Field) -> list[int]:
        """The integers of a repeated field, packed or one by itself."""
        if field.kind == VARINT:
            return [field.integer()]
        packed, position, values = field.bytes(), 0, []
        while position < len(packed):
            self._left -= 1
            if self._left < 0:
                raise WireError(f"it has more than {_MOST_FIELDS:,} fields")
            value, position = _varint(packed, position)
            values.append(value - 2**64 if value >= 2**63 else value)
        return values


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, lowest first, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise WireError("it is cut off")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, position
    raise WireError("a number has more than 64 bits")


def starts_like_a_message(head: bytes) -> bool:
    """Whether the first bytes of a file are the key of a field and a value that could be."""
    try:
        key, position = _varint(memoryview(head), 0)
    except WireError:
        return False
    return key >> 3 != 0 and key & 7 in (VARINT, FIXED64, BYTES, FIXED32) and position < len(head)

"""Text from files (names of classes, layers and files, summaries) on its way to a terminal, a page or a JSON file.

A name in Python may hold bytes that are not UTF-8 (as lone surrogates), and it may hold what a terminal obeys. Every
writer of this package passes its text through one of the functions here.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TextIO

_SURROGATES = re.compile("[\ud800-\udfff]")
_JOINERS = "\u200c\u200d"
"""Invisible letters that Persian, Indian scripts and emoji need."""


def valid_text(text: str) -> str:
    """Return `text` as valid Unicode, for files: a byte that is not UTF-8 becomes `\\xNN`.

    Different names stay different, unless one of them spells out such a `\\xNN`.
    """
    return text if text.isascii() else _SURROGATES.sub(_escaped, text)


def printable(text: str) -> str:
    """Return `text` as one line that a terminal and a page can show.

    A byte that is not UTF-8 becomes `\\xNN`. Control characters, line breaks and marks that change the direction of the
    text become `\\uNNNN`, as in JSON and TOML.
    """
    if text.isprintable():
        return text
    return "".join(
        _escaped(letter) if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") else letter
        for letter in text
    )


def printable_lines(text: str) -> str:
    """Return `text` of several lines, each as `printable` returns it."""
    return "\n".join(printable(line) for line in text.split("\n"))


def print_lines(*lines: str, stream: TextIO | None = None) -> None:
    """Print every argument as one line on `stream` (default: standard output), whatever it holds."""
    stream = stream if stream is not None else sys.stdout
    print(*(printable(line) for line in lines), sep="\n", file=stream, flush=stream is sys.stderr)


def json_text(record: Any, indent: int | None = 1) -> str:
    """Return JSON in ASCII that every parser reads.

    Paths become text, numbers that JSON does not have (nan, inf) become null, bytes that are not UTF-8 become `\\xNN`.
    """
    return json.dumps(_plain(record), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {valid_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return valid_text(str(value)) if isinstance(value, (str, PurePath)) else value


def _escaped(letter: str | re.Match[str]) -> str:
    code = ord(letter if isinstance(letter, str) else letter[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if chr(code) in _JOINERS:
        return chr(code)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

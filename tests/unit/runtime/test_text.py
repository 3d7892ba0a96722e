"""Text from files, as it may be shown and written."""

import io
import json
import math
import os
import unicodedata
from pathlib import Path

import pytest

from alexnet.runtime.text import json_text, print_lines, printable, printable_lines, valid_text

LATIN_1 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u732b", "caf\u00e9 \u732b"),
        (LATIN_1, r"caf\xe9"),
        ("a\x1b[2Jb\x9b1m", r"a\u001b[2Jb\u009b1m"),
        ("two\nlines\r\t", r"two\u000alines\u000d\u0009"),
        ("\u202eevil\u2066\u2028", r"\u202eevil\u2066\u2028"),
        ("\ud800x", r"\ud800x"),
        ("\U000e0041", r"\U000e0041"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # Persian needs this joiner
        ("$x^{$ <b>&", "$x^{$ <b>&"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    assert printable_lines(f"{text}\nb") == f"{printable_lines(text)}\nb"


def test_no_character_is_dangerous_or_lost():
    every = [chr(code) for code in range(0x110000)]
    shown = [printable(letter) for letter in every]
    left = {unicodedata.category(letter) for letter in shown if len(letter) == 1 and letter not in "\u200c\u200d"}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(set(shown)) == len(every)
    "".join(map(valid_text, every)).encode()


def test_valid_text_changes_surrogates_only():
    assert valid_text("a\x1b\n\u202e\u732b") == "a\x1b\n\u202e\u732b"
    assert valid_text(LATIN_1 + "\ud800") == r"caf\xe9\ud800"
    assert valid_text(os.fsdecode(b"caf\xe8")) != valid_text(LATIN_1)


def test_every_argument_is_one_line():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_lines("a\nerror: b", LATIN_1, "\x1b[31m", stream=stream)
    stream.flush()
    assert stream.buffer.getvalue().decode().split("\n") == [r"a\u000aerror: b", r"caf\xe9", r"\u001b[31m", ""]


def test_json_is_ascii_and_valid_for_every_parser():
    record = {"n\x1b": LATIN_1, "path": Path("a") / LATIN_1, "x": [math.nan, 1.5, None, ("\u202e", "\n")], LATIN_1: {}}
    text = json_text(record)
    assert text.isascii() and text.isprintable() is False and "\x1b" not in text and "\\ud" not in text
    assert json.loads(text) == {
        "n\x1b": r"caf\xe9",
        "path": r"a/caf\xe9",
        "x": [None, 1.5, None, ["\u202e", "\n"]],
        r"caf\xe9": {},
    }

"""The process in which uploads are decoded: it can be ended at any moment, takes little memory and writes no file.

Decoders of image files are large pieces of C that are fed with whatever strangers send. Here one may crash, hang or ask
for too much memory, and nothing but this process is lost. Nothing heavy is imported at the top, so that interrupts
are ignored from the start: the parent ends its processes itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from multiprocessing.connection import Connection
from pathlib import Path

MEMORY_MARGIN_BYTES = 256 * 2**20
BYTES_PER_PIXEL = 24
"""Enough for every way of decoding: the file's own mode, the same with transparency over white, and RGB."""
DECODED, UNREADABLE, FAILED = 0, 1, 2
HEADER = struct.Struct("<BIII")
"""What happened; height, width and the length of the text that follows: the format, or what is wrong."""


def serve(connection: Connection, max_pixels: int) -> None:
    """Answer files (bytes) until the pipe is closed: HEADER with its text; then, of a decoded one, the RGB pixels.

    No bytes at all are answered with b"ready".
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from PIL import Image

    from alexnet.data.decode import UnreadableImage, decode_image

    Image.MAX_IMAGE_PIXELS = max_pixels
    _confine(max_pixels)
    connection.send_bytes(b"ready")
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, OSError):
            return
        if not data:  # the server asks whether this process still answers
            connection.send_bytes(b"ready")
            continue
        try:
            pixels = decode_image(data)
        except UnreadableImage as error:
            _answer(connection, UNREADABLE, 0, 0, str(error))
        except MemoryError:
            _answer(connection, UNREADABLE, 0, 0, "it takes too much memory to decode")
        except Exception as error:
            _answer(connection, FAILED, 0, 0, f"{type(error).__name__}: {error}")
        else:
            height, width = pixels.shape[:2]
            _answer(connection, DECODED, height, width, format_of(data))
            connection.send_bytes(pixels.data.cast("B"))
            del pixels
        del data


def _answer(connection: Connection, outcome: int, height: int, width: int, text: str) -> None:
    encoded = text.encode("utf-8", "replace")[:1000]
    connection.send_bytes(HEADER.pack(outcome, height, width, len(encoded)) + encoded)


def format_of(data: bytes) -> str:
    """The name of the format whose first bytes these are; empty where they are none's."""
    if data[:2] == b"\xff\xd8":
        return "JPEG"
    if data[4:8] == b"ftyp":
        return "AVIF"
    if data[:4] == b"RIFF":
        return "WebP" if data[8:12] == b"WEBP" else ""
    return next((name for start, name in _FIRST_BYTES.items() if data.startswith(start)), "")


_FIRST_BYTES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    **{b"P%d" % number: "PNM" for number in range(1, 7)},
}


def _confine(max_pixels: int) -> None:
    """Limit this process's memory and forbid it to write files, where the system can."""
    try:
        import resource
    except ImportError:  # not Unix
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = used + MEMORY_MARGIN_BYTES + BYTES_PER_PIXEL * max_pixels
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError, IndexError):  # not Linux
        return

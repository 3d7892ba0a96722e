"""Images for prediction from wherever a person has them: files, folders, URLs, standard input, arrays."""

from __future__ import annotations

import http.client
import io
import os
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from alexnet.data.decode import IMAGE_SUFFIXES, UnreadableImage, decode_image
from alexnet.errors import UserError

MAX_DOWNLOAD_BYTES = 50_000_000
DOWNLOAD_TIMEOUT_SECONDS = 20.0
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_CONVERTED_MODES = {"RGBa": "RGBA", "La": "LA", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB"}  # no file holds these
_PORTABLE_MAP = re.compile(rb"P[1-6]\s(?:#[^\n]*\n)*\s*\d+\s+\d+\s")  # PBM, PGM, PPM

ImageInput = str | os.PathLike[str] | bytes | np.ndarray | Image.Image


@dataclass(frozen=True)
class NamedImage:
    """Something to predict, not read yet. `read` returns (H, W, 3) uint8 RGB or raises UnreadableImage."""

    name: str
    read: Callable[[], np.ndarray]


def open_inputs(inputs: ImageInput | Iterable[ImageInput], stdin: BinaryIO | None = None) -> Iterator[NamedImage]:
    """The images that `inputs` stand for, in order; nothing is read before its turn, nothing here raises for an image.

    A path is a file or a folder (all image files below it, sorted by path); "-" is standard input, which holds either
    one image or one path or URL a line; "http://..." and "https://..." are fetched; PIL images, arrays (H, W, 3) or
    (H, W) uint8 and the bytes of an image file are taken as they are.
    """
    if isinstance(inputs, str | os.PathLike | bytes | np.ndarray | Image.Image):
        inputs = [inputs]
    for position, item in enumerate(inputs):
        if isinstance(item, np.ndarray):
            yield NamedImage(f"array {position}", partial(_check_array, item))
        elif isinstance(item, Image.Image):
            yield NamedImage(str(getattr(item, "filename", "") or f"image {position}"), partial(_read_pillow, item))
        elif isinstance(item, bytes):
            yield NamedImage(f"bytes {position}", partial(decode_image, item))
        elif isinstance(item, str | os.PathLike):
            yield from _open_text(os.fspath(item), stdin)
        else:
            raise UserError(
                f"Cannot predict a {type(item).__name__}; give a path, a URL, a PIL image or a uint8 array (H, W, 3)."
            )


def _open_text(text: str, stdin: BinaryIO | None) -> Iterator[NamedImage]:
    if text == "-":
        yield from _open_standard_input((stdin if stdin is not None else sys.stdin.buffer).read())
    elif text.lower().startswith(("http://", "https://")):
        yield NamedImage(text, partial(_read_url, text))
    elif "://" in text and not Path(text).exists():
        scheme = text.split("://", 1)[0]
        yield _failed(text, f"{scheme} addresses cannot be read; give a path, or an http or https address")
    else:
        yield from _open_path(Path(text))


def _open_path(path: Path) -> Iterator[NamedImage]:
    if not path.is_dir():
        yield NamedImage(str(path), partial(decode_image, path))
        return
    found = False
    for image in _images_below(path):
        found = True
        yield NamedImage(str(image), partial(decode_image, image))
    if not found:
        yield _failed(str(path), "the folder holds no image files")


def _images_below(folder: Path) -> Iterator[Path]:
    """Image files in and below a folder, sorted folder by folder; hidden ones and linked folders are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(parent, name)


def _open_standard_input(data: bytes) -> Iterator[NamedImage]:
    if not data.strip():
        yield _failed("-", "standard input is empty")
    elif is_image_bytes(data):
        yield NamedImage("-", partial(decode_image, data))
    else:
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            if line.strip() == "-":
                yield _failed("-", "standard input cannot name itself")
            elif line.strip():
                yield from _open_text(line.strip(), None)


def is_image_bytes(data: bytes) -> bool:
    """Whether these are the bytes of an image file rather than lines of paths."""
    if data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or _PORTABLE_MAP.match(data):
        return True
    # No line of text holds a zero byte, and the first bytes of the remaining formats (BMP, JPEG 2000, AVIF) do.
    return b"\0" in data[:4096]


def download(
    url: str, *, timeout_seconds: float = DOWNLOAD_TIMEOUT_SECONDS, max_bytes: int = MAX_DOWNLOAD_BYTES
) -> bytes:
    """The body of an http or https address. Raises UnreadableImage saying what went wrong."""
    parts = urllib.parse.urlsplit(url)
    quoted = urllib.parse.urlunsplit(
        parts._replace(path=urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;="), fragment="")
    )
    request = urllib.request.Request(quoted, headers={"User-Agent": "alexnet", "Accept": "image/*"})
    try:
        with _web_opener().open(request, timeout=timeout_seconds) as response:
            body = response.read(max_bytes + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise UnreadableImage(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise UnreadableImage(f"it could not be fetched ({error.reason})") from None
    except (OSError, ssl.SSLError, http.client.HTTPException, ValueError) as error:
        raise UnreadableImage(f"it could not be fetched ({error or type(error).__name__})") from None
    if len(body) > max_bytes:
        raise UnreadableImage(f"it is larger than {max_bytes / 1e6:.0f} MB")
    return body


def _web_opener() -> urllib.request.OpenerDirector:
    """An opener for http and https only: the usual one would follow a redirection to ftp, and read file and data."""
    opener = urllib.request.OpenerDirector()
    proxies = {scheme: url for scheme, url in urllib.request.getproxies().items() if scheme in ("http", "https")}
    opener.add_handler(urllib.request.ProxyHandler(proxies))
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _read_url(url: str) -> np.ndarray:
    return decode_image(download(url))


def _read_pillow(image: Image.Image) -> np.ndarray:
    # Through a lossless file, so that every mode and orientation is treated as it is in a file.
    buffer = io.BytesIO()
    try:
        if image.mode in _CONVERTED_MODES:
            image = image.convert(_CONVERTED_MODES[image.mode])
        image.save(buffer, format="TIFF" if image.mode in ("CMYK", "F") else "PNG", exif=image.getexif())
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(str(error)) from None
    return decode_image(buffer.getvalue())


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise UnreadableImage(f"an array must be (H, W, 3) or (H, W) uint8, this is {array.shape} {array.dtype}")
    return array


def _failed(name: str, reason: str) -> NamedImage:
    def read() -> np.ndarray:
        raise UnreadableImage(reason)

    return NamedImage(name, read)

"""Images from wherever the user has them: files, folders, addresses, standard input, uploads, PIL images, arrays."""

from __future__ import annotations

import base64
import binascii
import http.client
import inspect
import os
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from alexnet.data.decode import IMAGE_SUFFIXES, UnreadableImage, decode_image, decode_picture
from alexnet.errors import UserError
from alexnet.evaluation.array_inputs import ArrayFormat, Layout, ValueRange, images_of, pixels_of, to_numpy
from alexnet.runtime.files import expanded_path

_NO_IMAGE = "no image is given; give files, folders or addresses of images."
MAX_DOWNLOAD_BYTES = 50_000_000
DOWNLOAD_TIMEOUT_SECONDS = 20.0
_LONGEST_NAME = 60
"""Characters of a data address that are shown: the others are the image itself."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_PORTABLE_MAP = re.compile(rb"P[1-6]\s(?:#[^\n]*\n)*\s*\d+\s+\d+\s")  # PBM, PGM, PPM


@runtime_checkable
class SupportsRead(Protocol):
    """An open file: on disk, in memory, or the upload of a web framework."""

    def read(self) -> Any:
        """Return the rest of the file."""
        ...


ImageInput = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray | torch.Tensor | SupportsRead
)
_IMAGES = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, torch.Tensor, SupportsRead)
"""The types of a single image, except for arrays: `_is_array` tells those."""
_GIVE = (
    "give a path or an address, the bytes of an image file or a file opened with mode 'rb', a PIL image, a NumPy array "
    "or a torch tensor, or a list of these"
)


@dataclass(frozen=True)
class NamedImage:
    """An image that was given, not decoded yet. `read` returns (H, W, 3) uint8 RGB or raises UnreadableImage."""

    name: str
    read: Callable[[], np.ndarray]
    mistake: str | None = None
    """Why it cannot be read, if the call is wrong and not the image. None: the image may be fine."""


def open_inputs(
    inputs: ImageInput | Iterable[ImageInput],
    stdin: BinaryIO | None = None,
    *,
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
) -> Iterator[NamedImage]:
    """Yield the images that `inputs` stand for, in order.

    A generator is consumed as far as the images are asked for, and may change or close what it gave when the next one
    is asked for. Files, folders and addresses are read when `NamedImage.read` is called.

    Args:
        inputs: One image, or a list, a tuple, a generator or another ordered collection of them. An image is
            a path or a folder (str or PathLike; "~" is the user's folder, a folder stands for all image files below it,
            sorted by path); an http, https, file or data address; "-" for standard input, which holds an image, or
            a path or an address per line; the bytes of an image file; a binary file, which is read from its beginning;
            a PIL image of any mode; a NumPy array, or what becomes one by `np.asarray`; a torch tensor.
        stdin: What "-" reads; None: `sys.stdin`.
        layout: Of arrays and tensors: "HWC" or "CHW". None: as the shape says where only one is possible.
        value_range: Of arrays and tensors: the values of black and of white. None: only uint8, from 0 to 255, and bool.

    Raises:
        UserError: For what cannot be an image, for a collection without an order or without images, and for a single
            input that is wrong in itself (shape, type of numbers, a closed file). Such an input in a collection, and
            any image that is missing or damaged, is an image whose `read` raises UnreadableImage.
    """
    form = ArrayFormat(layout, value_range)
    items, is_one = items_of(inputs)
    changes = not isinstance(items, Sequence)
    found = False
    for position, item in enumerate(items):
        for image in _open(item, position, stdin, form, changes=changes):
            if is_one and image.mistake is not None:
                raise UserError(f"{image.name}: {image.mistake}.")
            found = True
            yield image
    if not found:
        raise UserError(_NO_IMAGE)


def read_image(image: ImageInput, *, layout: Layout | None = None, value_range: ValueRange | None = None) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 RGB of one image, given as for `open_inputs`. Raises UserError."""
    images = list(islice(open_inputs(image, layout=layout, value_range=value_range), 2))
    if len(images) != 1:
        raise UserError("several images are given where one is expected.")
    try:
        return images[0].read()
    except UnreadableImage as error:
        raise UserError(f"{images[0].name} cannot be read: {error}.") from None


def items_of(inputs: Any) -> tuple[Iterable[Any], bool]:
    """Return the items of `open_inputs` in order, and whether it is a single one that was given without a collection.

    Raises UserError for what is neither an image nor an ordered collection.
    """
    if _is_array(inputs) and getattr(inputs, "ndim", 0) == 1:
        column = np.asarray(inputs)
        if column.dtype.kind in "OU":
            return list(column), False  # paths in an array, or in a column of a table
    if isinstance(inputs, _IMAGES) or _is_array(inputs):
        return [inputs], True
    if isinstance(inputs, Mapping):
        raise UserError("a dictionary is not a list of images; give list(images.values()).")
    if isinstance(inputs, set | frozenset):
        raise UserError("a set has no order, so predictions could not be told apart; give a list, sorted(images).")
    if isinstance(inputs, Iterable):
        return inputs, False
    raise UserError(f"{_described(inputs)} is not an image; {_GIVE}.")


def _is_array(item: Any) -> bool:
    """Whether it is an array of NumPy or of another library; PIL images and tensors could be taken for one."""
    return hasattr(type(item), "__array__") and not isinstance(item, Image.Image | torch.Tensor)


def _described(item: Any) -> str:
    return "None" if item is None else f"an object of type {type(item).__name__}"


def _open(
    item: Any, position: int, stdin: BinaryIO | None, form: ArrayFormat, *, changes: bool
) -> Iterator[NamedImage]:
    """The images of one item. changes: the caller may change or close it when the next item is requested."""
    if isinstance(item, str):
        yield from _open_text(item, stdin)
    elif isinstance(item, os.PathLike):
        yield from _open_path(os.fsdecode(item))
    elif isinstance(item, bytes | bytearray) or (isinstance(item, memoryview) and item.ndim == 1):
        yield NamedImage(f"bytes {position}", partial(decode_image, bytes(item)))
    elif isinstance(item, Image.Image):
        yield _open_picture(item, str(getattr(item, "filename", "") or f"image {position}"), changes=changes)
    elif isinstance(item, torch.Tensor):
        yield from _open_array(lambda: to_numpy(item), f"tensor {position}", form, changes=changes)
    elif isinstance(item, memoryview) or _is_array(item):
        yield from _open_array(lambda: np.asanyarray(item), f"array {position}", form, changes=changes)
    elif isinstance(item, SupportsRead):
        yield _open_file(item, position)
    elif isinstance(item, list | tuple):
        raise UserError(f"item {position} is a {type(item).__name__} itself; {_GIVE}.")
    else:
        raise UserError(f"item {position} is not an image but {_described(item)}; {_GIVE}.")


def _open_array(
    values: Callable[[], np.ndarray], name: str, form: ArrayFormat, *, changes: bool
) -> Iterator[NamedImage]:
    try:
        array = values()
        images = images_of(array, form.layout)
    except UserError as error:
        yield _wrong(name, str(error))
        return
    except Exception as error:  # other libraries raise other types
        yield _wrong(name, f"it does not become a NumPy array ({error})")
        return
    for number, image in enumerate(images):
        image_name = f"{name}[{number}]" if array.ndim == 4 else name
        try:
            pixels = pixels_of(image, form.value_range)
        except (UserError, UnreadableImage) as error:
            yield _wrong(image_name, str(error))
            continue
        yield NamedImage(image_name, partial(np.asarray, pixels.copy() if changes else pixels))


def _open_picture(image: Image.Image, name: str, *, changes: bool) -> NamedImage:
    if not changes:
        return NamedImage(name, partial(decode_picture, image))
    try:
        # Pillow reads the file only now, and the file may be closed when the next item is requested.
        return NamedImage(name, partial(np.asarray, decode_picture(image)))
    except UnreadableImage as error:
        return _failed(name, str(error))


def _open_file(file: SupportsRead, position: int) -> NamedImage:
    """An open file. It is read now, since its owner may close it, and from its beginning, as Pillow does."""
    names = [getattr(file, attribute, None) for attribute in ("filename", "name")]
    name = next((str(name) for name in names if isinstance(name, str | os.PathLike) and str(name)), f"file {position}")
    opened_as_text = "the file is open as text; open it with mode 'rb', or give its path"
    if getattr(file, "closed", False) is True:
        return _wrong(name, "the file is closed; open it again with mode 'rb', or give its path")
    if inspect.iscoroutinefunction(file.read):
        return _wrong(name, "the file is read asynchronously; give its bytes, await file.read()")
    try:
        with suppress(AttributeError, OSError, ValueError):  # a stream
            file.seek(0)  # type: ignore[attr-defined]
        data = file.read()
    except UnicodeDecodeError:
        return _wrong(name, opened_as_text)
    except Exception as error:  # other libraries raise other types
        return _failed(name, f"it cannot be read ({error or type(error).__name__})")
    if isinstance(data, str):
        return _wrong(name, opened_as_text)
    if not isinstance(data, bytes | bytearray | memoryview):
        return _wrong(name, f"reading the file gives {_described(data)}; give a file that gives bytes")
    return NamedImage(name, partial(decode_image, bytes(data)))


def _open_text(text: str, stdin: BinaryIO | None) -> Iterator[NamedImage]:
    scheme = text.partition(":")[0].lower()
    if not text.strip():
        yield _wrong(repr(text), "an empty text names no image; give a path (. is the current folder) or an address")
    elif text == "-":
        stream = stdin if stdin is not None else getattr(sys.stdin, "buffer", None)
        if stream is None:  # in a notebook
            yield _wrong("-", "there is no standard input here; give a path or an address")
        else:
            yield from _open_standard_input(stream.read())
    elif text.lower().startswith(("http://", "https://")):
        yield NamedImage(text, partial(_read_url, text))
    elif scheme == "data" and "," in text:
        name = text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
        yield NamedImage(name, partial(_read_data_address, text))
    elif scheme == "file" and (path := file_of_address(text)) is not None:
        yield from _open_path(path)
    elif "://" in text and not os.path.exists(text):
        yield _failed(text, f"{scheme} addresses cannot be read; give a path, or an http or https address")
    else:
        yield from _open_path(text)


def file_of_address(text: str) -> str | None:
    """The path of a file address (file:///folder/a%20b.jpg); None for other texts and files of other machines."""
    scheme, _, rest = text.partition(":")
    if scheme.lower() != "file" or os.path.exists(text):
        return None
    if rest.startswith("//"):
        host, separator, rest = rest[2:].partition("/")
        if host not in ("", "localhost"):
            return None
        rest = separator + rest
    return urllib.request.url2pathname(rest) or None


def _open_path(text: str) -> Iterator[NamedImage]:
    if "\0" in text:
        yield _wrong(repr(text), "no path holds a null character")
        return
    path = Path(text) if os.path.lexists(text) else expanded_path(text)
    if not os.path.isdir(path):
        yield NamedImage(str(path), partial(_read_path, path))
        return
    found = False
    for image in _images_below(path):
        found = True
        yield NamedImage(str(image), partial(decode_image, image))
    if not found:
        yield _failed(str(path), "the folder holds no image files")


def _read_path(path: Path) -> np.ndarray:
    if os.path.lexists(path):
        return decode_image(path)
    text, hint = str(path), ""
    if "\n" in text:
        hint = "; several paths are given as a list"
    elif any(sign in text for sign in "*?["):
        hint = "; patterns are not expanded here, glob.glob does it"
    raise UnreadableImage(f"no such file or directory{hint}")


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


def _read_data_address(text: str) -> np.ndarray:
    head, _, data = text.partition(",")
    raw = urllib.parse.unquote_to_bytes(data)
    if head.lower().rstrip().endswith(";base64"):
        raw = b"".join(raw.split())
        try:
            raw = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
        except binascii.Error:
            raise UnreadableImage("its base64 data are damaged") from None
    return decode_image(raw)


def _wrong(name: str, reason: str) -> NamedImage:
    """What the caller should have given otherwise; in a collection the others are read all the same."""
    return replace(_failed(name, reason), mistake=reason)


def _failed(name: str, reason: str) -> NamedImage:
    def read() -> np.ndarray:
        raise UnreadableImage(reason)

    return NamedImage(name, read)

"""Bytes of an image file to the RGB pixels that a person sees."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "avif"),
    )
)

# Every other format that Pillow knows stays shut: some of them start programs (EPS runs Ghostscript).
Image.init()
_FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
    if name in Image.OPEN
)
_ORIENTATION = 0x0112
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # of a segment, or the end
_MAX_SCANS = 100
"""Of a progressive JPEG; usual ones have ten."""
_UNSTORED_MODES = {"RGBa": "RGBA", "La": "LA"}
"""Of PIL images, with colours multiplied by their opacity; no file holds them."""
_GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class UnreadableImage(Exception):
    """An image that cannot be decoded; str() is a short reason without the file's name, the same every time."""


def decode_image(data: bytes | Path) -> np.ndarray:
    """Decode an image file, given as its content or its path, to (H, W, 3) uint8 RGB.

    Greyscale is repeated in the three channels, 16-bit grey is scaled to 8 bits, transparency is laid over white, the
    EXIF orientation is applied, and of an animation the first frame is taken. Raises UnreadableImage for anything else,
    also for more pixels than Pillow's limit `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if isinstance(data, Path):
        data = _read(data)
    if not data:
        raise UnreadableImage("the file is empty")
    if data[:2] == b"\xff\xd8":
        pixels = _decode_plain_jpeg(data)
        if pixels is not None:
            return pixels
    return _decode_with_pillow(data)


def decode_with_note(data: bytes) -> tuple[np.ndarray, str | None]:
    """The pixels that decode_image gives, and what was unusual about the file; None for a sound one.

    The note is the same every time. It is about what changes the pixels: colours for printing, a turn that EXIF asks
    for, JPEG data with errors that a strict decoder refuses.
    """
    if data[:2] != b"\xff\xd8":
        return decode_image(data), None
    pixels = _decode_plain_jpeg(data)
    if pixels is not None:
        return pixels, None
    pixels = _decode_with_pillow(data)
    try:
        color_space = simplejpeg.decode_jpeg_header(data)[2]
    except ValueError:
        color_space = None
    if color_space in ("CMYK", "YCCK"):
        return pixels, "its CMYK colours were converted to RGB"
    if not _is_upright(data):
        return pixels, "it was turned upright, as its EXIF data say"
    return pixels, "its JPEG data have errors; it is kept as a lenient decoder shows it"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UnreadableImage("it is a folder, not a file") from None
    except OSError as error:
        raise UnreadableImage((error.strerror or type(error).__name__).lower()) from None


def _decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decode an upright greyscale, YCbCr or RGB JPEG with simplejpeg (about twice as fast); None: leave it to Pillow.

    Pillow has the last word on everything odd, so that what is readable, and as which pixels, does not depend on the
    decoder.
    """
    try:
        height, width, color_space, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(int(width), int(height))
        # Each scan is a pass over all pixels, from a few bytes. A film that is appended may hold its mark by chance.
        if data.count(b"\xff\xda") > _MAX_SCANS and _count_scans(data) > _MAX_SCANS:
            raise UnreadableImage(f"it has more than {_MAX_SCANS} scans")
        if color_space not in ("YCbCr", "Gray", "RGB") or not _is_upright(data):
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False)
    except ValueError:
        return None


def _is_upright(data: bytes) -> bool:
    head = _before_scan(data)
    if b"Exif\x00\x00" not in head and b"http://ns.adobe.com/xap/" not in head:
        return True
    try:
        with _silent_pillow(), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:
        return False


def _count_scans(data: bytes) -> int:
    at, count = 2, 0
    while (marker := _MARKER.search(data, at)) is not None and marker[1] != b"\xd9":
        count += marker[1] == b"\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return count


def _before_scan(data: bytes) -> bytes:
    """The segments of a JPEG before its compressed pixels; all of it, where they do not follow each other properly."""
    at = 2
    while data[at : at + 1] == b"\xff":
        if data[at + 1 : at + 2] == b"\xda":
            return data[:at]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data


def _decode_with_pillow(data: bytes) -> np.ndarray:
    try:
        with _silent_pillow(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _pixels(image)
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to, from OSError to IndexError
        raise UnreadableImage(_reason(error)) from None


def decode_picture(image: Image.Image) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 RGB of a PIL image, the same as `decode_image` reads from its file.

    Raises UnreadableImage for an image that has been closed or has no pixels, and for a damaged file behind it.
    """
    try:
        # Pillow reads the file behind an image when its pixels are needed, and two threads may have the same image.
        with _silent_pillow(), _loading:
            return _pixels(image)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error)) from None


def _pixels(image: Image.Image) -> np.ndarray:
    _check_size(*image.size)
    image.load()
    return np.array(_to_rgb(_upright(_with_ink(image))))


def _with_ink(image: Image.Image) -> Image.Image:
    """A CMYK JPEG without Adobe's marker stores the ink; Pillow takes each for Adobe's, which stores 255 - ink."""
    if image.mode != "CMYK" or image.format != "JPEG" or "adobe" in image.info:
        return image
    return Image.merge("CMYK", [band.point(lambda ink: 255 - ink) for band in image.split()])


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _UNSTORED_MODES:
        image = image.convert(_UNSTORED_MODES[image.mode])
    if image.mode in _GREY_16_BIT:
        return _grey(np.asarray(image).astype(np.float64) / 257)
    if image.mode in ("I", "F"):
        return _grey(_to_8_bit_range(np.asarray(image).astype(np.float64)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit_range(values: np.ndarray) -> np.ndarray:
    """Bring values of unstated range to 0-255: from the narrowest usual range that holds them, or else stretched.

    Usual ranges are 0-1 (floats; an integer image of zeros and ones comes out black and white too), 0-255 and 0-65535.
    """
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if low >= 0:
        for limit in (1, 255, 65535):
            if high <= limit:
                return values * (255 / limit)
    return (values - low) * (255 / ((high - low) or 1))


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise UnreadableImage("it has no pixels")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UnreadableImage(f"{width} x {height} pixels are more than the limit of {limit:,}")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,}"
    message = str(error) or type(error).__name__
    if "truncated" in message.lower() or isinstance(error, EOFError):
        return "the file is truncated"
    return re.sub(r"\s*<[^>]*0x[0-9a-f]+>", "", message)[:200]


_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_silence = threading.Lock()
_loading = threading.Lock()
_silenced: list[list[Any]] = []
"""The lists of filters that hold _IGNORE_PILLOW now, one entry each time."""
_num_decoding = 0


@contextmanager
def _silent_pillow() -> Iterator[None]:
    """Keep Pillow's warnings about a file's content from the user: what matters becomes UnreadableImage.

    `warnings.catch_warnings` is not safe in threads. The filter is put in front of those that other code has added, and
    the last thread that decodes takes it out again. It is added to the list directly: `warnings.filterwarnings` also
    forgets which warnings were shown, so that those of the user's own code would be repeated.
    """
    global _num_decoding
    with _silence:
        _num_decoding += 1
        filters = cast("list[Any]", warnings.filters)
        if not filters or filters[0] is not _IGNORE_PILLOW:
            filters.insert(0, _IGNORE_PILLOW)
            _silenced.append(filters)
    try:
        yield
    finally:
        with _silence:
            _num_decoding -= 1
            while _silenced and not _num_decoding:
                with suppress(ValueError):  # other code has emptied the list
                    _silenced.pop().remove(_IGNORE_PILLOW)

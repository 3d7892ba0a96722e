"""One image of a published data set to what a prepared one keeps of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from alexnet.data.decode import UnreadableImage, decode_image, decode_with_note
from alexnet.data.squares import to_square

Encoding = Literal["jpeg", "raw", "original"]

_SIGNATURES = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"RIFF": "webp",
    b"\0\0\0\x0cjP": "jp2",
    **{b"P%d" % i: "ppm" for i in range(1, 7)},
}
_SPELLINGS = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif", "pgm": "ppm", "pbm": "ppm", "pnm": "ppm"}


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """What is stored of an image: payload and its extension; square: (S, S, 3) uint8 as a reader will decode it.

    note: what was unusual about the original, None for a sound one.
    """

    payload: bytes
    extension: str
    square: np.ndarray
    note: str | None


def encode_image(
    original: bytes | np.ndarray, name: str, *, encoding: Encoding, image_size: int, quality: int
) -> EncodedImage:
    """Shorter side to `image_size`, the centre square, and that as JPEG or raw pixels; or the original as it is.

    A JPEG that is such a square already is kept byte for byte: encoding it again would only lose. Raises
    UnreadableImage.
    """
    if isinstance(original, np.ndarray):
        pixels, note, data = original, None, b""
    else:
        if not original:
            raise UnreadableImage("the file is empty")
        pixels, note = decode_with_note(original)
        data = original
    note = _misnamed(name, data) or note
    square = to_square(pixels, image_size)
    if encoding == "raw":
        return EncodedImage(_npy(square), "npy", square, note)
    if encoding == "original":
        if isinstance(original, np.ndarray):
            return EncodedImage(_png(original), "png", square, note)
        return EncodedImage(original, _type_of(data) or "jpg", square, note)
    if note is None and data[:2] == b"\xff\xd8" and pixels.shape == square.shape and b"Exif\0\0" not in data:
        return EncodedImage(data, "jpg", square, None)
    payload = simplejpeg.encode_jpeg(
        np.ascontiguousarray(square), quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    # What training sees is what comes out of the file, so the statistics are of that.
    return EncodedImage(payload, "jpg", decode_image(payload), note)


def decode_raw(payload: memoryview | bytes) -> np.ndarray:
    """The pixels of a raw payload: (S, S, 3) uint8, a view of it."""
    header = 10 + int.from_bytes(payload[8:10], "little")
    pixels = np.frombuffer(payload, np.uint8, offset=header)
    side = round((len(pixels) / 3) ** 0.5)
    if side * side * 3 != len(pixels):
        raise UnreadableImage("its pixels are no square")
    return pixels.reshape(side, side, 3)


def _misnamed(name: str, data: bytes) -> str | None:
    """A note where the file is of another type than its name says."""
    said = name.rpartition(".")[2].lower()
    said = _SPELLINGS.get(said, said)
    found = _type_of(data)
    if found is None or said not in _SIGNATURES.values() or said == found:
        return None
    return f"it is a {found.upper()} file by its content, whatever its name says"


def _type_of(data: bytes) -> str | None:
    return next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)


def _npy(square: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(square), allow_pickle=False)
    return buffer.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

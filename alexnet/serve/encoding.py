"""Pictures and bytes as what can be sent or written."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def png_of(pixels: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as a PNG file: nothing is lost, so that it may be sent back and gives the same."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")

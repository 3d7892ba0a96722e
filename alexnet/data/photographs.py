"""Drawn photographs: files that decode as slowly as photographs do, for measuring where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from alexnet.runtime.randomness import random_stream

NUM_CLASSES = 4
_QUALITY = 92
_FALL = 1.22
"""From an octave to the next; so that files have the sizes of ImageNet's, about 100 kB."""
_SHAPES = ((375, 500), (333, 500), (500, 375))


def draw_photograph(number: int) -> np.ndarray:
    """(H, W, 3) uint8 of ImageNet's usual sizes: noise whose detail falls with its fineness, as in photographs."""
    stream = random_stream(0, "photograph", number)
    height, width = _SHAPES[number % len(_SHAPES)]
    image = np.full((height, width, 3), 127.5, np.float32)
    for octave in range(1, 10):
        # Colours vary less finely than lightness.
        channels = 3 if octave <= 4 else 1
        cells = min(2**octave, height, width)
        image += _noise(stream, cells, channels, height, width) * (90 / _FALL**octave)
    return np.clip(image, 0, 255).astype(np.uint8)


def _noise(stream: np.random.Generator, cells: int, channels: int, height: int, width: int) -> np.ndarray:
    """(H, W, channels) float32 from -1 to 1, as fine as so many cells."""
    coarse = stream.integers(0, 256, (cells, cells, channels), dtype=np.uint8)
    image = Image.fromarray(coarse.squeeze(2) if channels == 1 else coarse)
    fine = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return fine.reshape(height, width, channels) / 127.5 - 1


def draw_folder(root: Path, num_images: int) -> None:
    """Write `num_images` drawn photographs as JPEG files, one folder a class, as training and validation images."""
    for number in range(num_images):
        data = simplejpeg.encode_jpeg(draw_photograph(number), quality=_QUALITY, colorsubsampling="420")
        name = f"class{number % NUM_CLASSES}"
        for split in ("train", "val") if number < NUM_CLASSES else ("train",):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06d}.jpg").write_bytes(data)

"""The augmentation of the paper (4.1): random crops, reflections, and noise along the principal components of colour.

`draw_augmentation` makes all random choices of a step from (seed, step); `cut_crop` (resample.py) carries out the
geometric ones, and `Preprocessing.normalize` applies the colour shift together with the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alexnet.config import AugmentConfig
from alexnet.data.statistics import Statistics
from alexnet.runtime.randomness import random_stream


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images of one batch."""

    boxes: np.ndarray
    """(B, 4) int64: top, left, height, width of the crop in the square."""
    flips: np.ndarray
    """(B,) bool: reflect left-right."""
    color_shift: np.ndarray | None
    """(B, 3) float32, 0-255 RGB, added to every pixel of the image; None while colour noise is off."""
    divisor: float
    """The whole image is divided by this."""

    def of_rows(self, rows: range) -> Augmentation:
        """The part that concerns some consecutive images of the batch."""
        part = slice(rows.start, rows.stop)
        shift = None if self.color_shift is None else self.color_shift[part]
        return Augmentation(self.boxes[part], self.flips[part], shift, self.divisor)


def draw_augmentation(
    config: AugmentConfig,
    statistics: Statistics,
    *,
    seed: int,
    step: int,
    epoch: float,
    batch_size: int,
    image_size: int,
    crop_size: int,
) -> Augmentation:
    """All random choices for the batch of one step."""
    # S convdata_jpeg.py:77,238 drew one offset and one reflection for each run of 32 images (crop_shared_by).
    num_draws = -(-batch_size // config.crop_shared_by)
    geometry = random_stream(seed, "crop", step)
    boxes = _draw_boxes(config, geometry, num_draws, image_size, crop_size)
    flips = geometry.random(num_draws) < 0.5 if config.flip else np.zeros(num_draws, dtype=bool)
    until = config.color_noise_until_epoch
    noisy = config.color_noise > 0 and (until is None or epoch < until)
    return Augmentation(
        boxes=np.repeat(boxes, config.crop_shared_by, axis=0)[:batch_size],
        flips=np.repeat(flips, config.crop_shared_by)[:batch_size],
        color_shift=_draw_color_shift(config.color_noise, statistics, seed, step, batch_size) if noisy else None,
        divisor=config.color_noise_divisor if noisy else 1.0,
    )


def _draw_boxes(
    config: AugmentConfig, stream: np.random.Generator, num_draws: int, image_size: int, crop_size: int
) -> np.ndarray:
    if config.crop == "random_resized":
        return _draw_resized_boxes(stream, num_draws, image_size)
    border = image_size - crop_size
    if config.crop == "center":
        offsets = np.full((num_draws, 2), border // 2)
    else:
        # Every offset 0..border: 33 * 33 * 2 = 2178 views of a 256 square (the paper's text rounds to 2048).
        offsets = stream.integers(0, border + 1, size=(num_draws, 2))
    return np.concatenate([offsets, np.full((num_draws, 2), crop_size)], axis=1)


def _draw_resized_boxes(stream: np.random.Generator, num_draws: int, image_size: int) -> np.ndarray:
    """Boxes of 8-100 % of the area and aspect 3/4 to 4/3, clipped to the square."""
    area = stream.uniform(0.08, 1.0, num_draws) * image_size**2
    aspect = np.exp(stream.uniform(np.log(3 / 4), np.log(4 / 3), num_draws))
    heights = np.clip(np.rint(np.sqrt(area / aspect)), 1, image_size).astype(np.int64)
    widths = np.clip(np.rint(np.sqrt(area * aspect)), 1, image_size).astype(np.int64)
    tops = np.floor(stream.random(num_draws) * (image_size - heights + 1)).astype(np.int64)
    lefts = np.floor(stream.random(num_draws) * (image_size - widths + 1)).astype(np.int64)
    return np.stack([tops, lefts, heights, widths], axis=1)


def _draw_color_shift(magnitude: float, statistics: Statistics, seed: int, step: int, batch_size: int) -> np.ndarray:
    """One shift an image, constant over its pixels: vectors @ (N(0,1) * standard deviations) * magnitude.

    The paper's text says eigenvalues; the 2012 code used their square roots, the standard deviations (paper.md 3.5).
    """
    alphas = random_stream(seed, "color", step).standard_normal((batch_size, 3)) * magnitude
    return ((alphas * statistics.color_stdevs) @ statistics.color_vectors.T).astype(np.float32)

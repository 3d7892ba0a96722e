"""The built-in shapes: drawn pictures whose classes need shape, texture and colour to be told apart.

Everything is drawn from signed distances in units of the picture's side, so a picture is the same at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alexnet.data.splits import Source, Split, build_source

DEFAULT_SIZE = 256
_NUM_TRAIN, _NUM_VAL = 1000, 200
_SPLIT_SEEDS = {"train": 1, "val": 2}


@dataclass(frozen=True)
class _Kind:
    """A class: an outline, a fill and, where it matters, a range of hues (in turns; red is 0)."""

    outline: str
    fill: str
    hues: tuple[float, float] = (0.0, 1.0)


_RED, _BLUE = (-0.06, 0.09), (0.53, 0.70)
# No outline, fill or colour belongs to one class alone; every class has neighbours that differ in one of the three.
_KINDS = {
    "red_disk": _Kind("disk", "plain", _RED),
    "blue_disk": _Kind("disk", "plain", _BLUE),
    "striped_disk": _Kind("disk", "stripes"),
    "dotted_square": _Kind("square", "dots"),
    "checked_square": _Kind("square", "checks"),
    "striped_square": _Kind("square", "stripes"),
    "red_triangle": _Kind("triangle", "plain", _RED),
    "blue_triangle": _Kind("triangle", "plain", _BLUE),
    "dotted_star": _Kind("star", "dots"),
    "checked_star": _Kind("star", "checks"),
}
CLASSES = tuple(_KINDS)


def open_shapes(size: int = DEFAULT_SIZE) -> Source:
    """1,000 training and 200 validation pictures of `size` x `size`, 10 classes in turn, drawn when they are read."""
    return build_source(
        name="shapes" if size == DEFAULT_SIZE else f"shapes:{size}",
        kind="shapes",
        classes=CLASSES,
        class_names=[name.replace("_", " ") for name in CLASSES],
        train=_split("train", _NUM_TRAIN, size),
        val=_split("val", _NUM_VAL, size),
    )


def draw_shape(split: str, index: int, size: int) -> np.ndarray:
    """Picture `index` of the "train" or "val" split, (size, size, 3) uint8; its class is CLASSES[index % 10]."""
    # RandomState's stream is frozen by NumPy's compatibility policy, which that of default_rng is not.
    random = np.random.RandomState([_SPLIT_SEEDS[split], index])
    kind = _KINDS[CLASSES[index % len(CLASSES)]]
    centers = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(centers, centers)  # (size, size) each, 0 at the left and top edge, 1 at the other
    picture = _background(random, x, y)
    for _ in range(random.randint(0, 4)):
        picture = _paint_speck(random, picture, x, y)
    picture = _paint_shape(random, kind, picture, x, y)
    picture *= _light(random, x, y)[..., None]
    picture += _grain(random, size)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _split(name: str, num_images: int, size: int) -> Split:
    labels = np.arange(num_images, dtype=np.int64) % len(CLASSES)
    keys = [f"{name}/{size}px/{i}" for i in range(num_images)]
    return Split(name, labels, keys, lambda i: draw_shape(name, i, size))


def _background(random: np.random.RandomState, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two colours of any hue, mixed by a few waves: coarse clouds or fine grain. (size, size, 3) float32, 0-1."""
    first, second = (_color(random, random.uniform(), (0.0, 0.7), (0.25, 0.85)) for _ in range(2))
    mix = np.zeros_like(x)
    for _ in range(4):
        frequency = math.exp(random.uniform(0, math.log(14.0)))
        angle, phase = random.uniform(0, math.pi), random.uniform()
        # sin(a + b) from the sines of a (size,) and b (size,): a plane wave without a sine for every pixel.
        across = 2 * math.pi * (frequency * math.cos(angle) * x[:1, :] + phase)
        down = 2 * math.pi * frequency * math.sin(angle) * y[:, :1]
        mix += np.sin(across) * np.cos(down) + np.cos(across) * np.sin(down)
    mix = (0.5 + 0.25 * random.uniform(0.3, 1.0) * mix).clip(0, 1)[..., None]
    first, second = first.astype(np.float32), second.astype(np.float32)
    return first + (second - first) * mix


def _paint_speck(random: np.random.RandomState, picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A small bar of any colour: something in the picture that says nothing about the class."""
    u, v = _local(random, x, y, scale=random.uniform(0.015, 0.035), reach=0.45)
    distance = np.maximum(np.abs(u) - random.uniform(1.5, 3.0), np.abs(v) - 0.5)
    color = _color(random, random.uniform(), (0.2, 0.9), (0.2, 0.95))
    return _blend(picture, color, _coverage(distance, u, len(x)))


def _paint_shape(
    random: np.random.RandomState, kind: _Kind, picture: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    scale = random.uniform(0.17, 0.33)
    u, v = _local(random, x, y, scale=scale, reach=0.5 - scale)
    distance = _OUTLINES[kind.outline](u, v)
    hue = random.uniform(*kind.hues)
    color = _color(random, hue, (0.6, 0.95), (0.6, 0.95))
    shadow = _OUTLINES[kind.outline](u - 0.12, v - 0.12)
    picture = _blend(picture, np.zeros(3), 0.35 * _coverage(shadow, u, len(x)))
    picture = _blend(picture, color, _coverage(distance, u, len(x)))
    if kind.fill == "plain":
        return picture
    # The pattern has its own angle, and the same hue much darker or much lighter, so that no new colour comes in.
    angle = random.uniform(0, math.pi)
    s, t = math.cos(angle) * u + math.sin(angle) * v, math.cos(angle) * v - math.sin(angle) * u
    pattern = _FILLS[kind.fill](s, t, random.uniform(0.28, 0.42))
    inside = np.maximum(distance, pattern)
    accent = color * 0.3 if random.uniform() < 0.5 else 0.25 * color + 0.75
    return _blend(picture, accent, _coverage(inside, u, len(x)))


def _local(
    random: np.random.RandomState, x: np.ndarray, y: np.ndarray, *, scale: float, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) turned, scaled and moved so that the shape reaches about 1 from its own centre."""
    center_x, center_y = 0.5 + reach * random.uniform(-1, 1, size=2)
    angle, stretch = random.uniform(0, 2 * math.pi), math.exp(random.uniform(-0.1, 0.1))
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    dx, dy = x - float(center_x), y - float(center_y)
    return (cos * dx + sin * dy) * stretch, (cos * dy - sin * dx) / stretch


def _disk(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 1


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.85


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u) * 0.8660254 + v * 0.5, -v) - 0.6


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points: in the wedge around one point, the edge is a straight line from the tip to the notch."""
    wedge = np.float32(2 * math.pi / 5)
    angle = np.abs((np.arctan2(u, v) + wedge / 2) % wedge - wedge / 2)
    radius = np.hypot(u, v)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    tip, notch = 1.15, 0.5
    notch_along, notch_across = notch * np.cos(wedge / 2), notch * np.sin(wedge / 2)
    normal_along, normal_across = notch_across, tip - notch_along
    length = np.hypot(normal_along, normal_across)
    return ((along - tip) * normal_along + across * normal_across) / length


def _stripes(s: np.ndarray, t: np.ndarray, period: float) -> np.ndarray:
    return np.abs(_wrap(s, period)) - period / 4


def _dots(s: np.ndarray, t: np.ndarray, period: float) -> np.ndarray:
    period = 1.3 * period
    return np.hypot(_wrap(s, period), _wrap(t, period)) - 0.3 * period


def _checks(s: np.ndarray, t: np.ndarray, period: float) -> np.ndarray:
    """Squares of a chess board: where the two stripes' signs agree."""
    period = 1.6 * period
    first, second = np.abs(_wrap(s, period)) - period / 4, np.abs(_wrap(t, period)) - period / 4
    return np.maximum(np.minimum(first, second), -np.maximum(first, second))


def _wrap(values: np.ndarray, period: float) -> np.ndarray:
    return (values + period / 2) % period - period / 2


_Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
_OUTLINES: dict[str, _Distance] = {"disk": _disk, "square": _square, "triangle": _triangle, "star": _star}
_FILLS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
}


def _coverage(distance: np.ndarray, u: np.ndarray, size: int) -> np.ndarray:
    """How much of each pixel lies inside (distance < 0): a ramp of about one pixel, which is the anti-aliasing."""
    pixel = np.hypot(u[0, 1] - u[0, 0], u[1, 0] - u[0, 0]) if size > 1 else 1.0
    return np.clip(0.5 - distance / pixel, 0, 1)


def _blend(picture: np.ndarray, color: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Lay `color` over the picture, in place, where the coverage is not zero; returns the picture."""
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    if len(rows) and len(columns):
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = picture[box]
        part += (color.astype(np.float32) - part) * coverage[box][..., None].astype(np.float32)
    return picture


def _light(random: np.random.RandomState, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brighter on one side than on the other, and brighter or darker over all."""
    angle, slope, level = random.uniform(0, 2 * math.pi), random.uniform(0, 0.5), random.uniform(0.7, 1.1)
    return (level * (1 + slope * (math.cos(angle) * (x - 0.5) + math.sin(angle) * (y - 0.5)))).astype(np.float32)


def _grain(random: np.random.RandomState, size: int) -> np.ndarray:
    """Noise of each pixel, the same in its three channels: (size, size, 1) float32."""
    amplitude = random.uniform(0, 0.07)
    return (random.randint(0, 256, (size, size, 1), np.uint8).astype(np.float32) - 127.5) * (amplitude / 255)


def _color(
    random: np.random.RandomState, hue: float, saturations: tuple[float, float], values: tuple[float, float]
) -> np.ndarray:
    """A colour of this hue (in turns), with saturation and value drawn from their ranges: (3,) RGB, 0-1."""
    saturation, value = random.uniform(*saturations), random.uniform(*values)
    sectors = (hue * 6 + np.array([0.0, 4.0, 2.0])) % 6
    pure = np.clip(np.abs(sectors - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - pure))

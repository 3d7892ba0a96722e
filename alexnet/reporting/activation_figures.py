"""What layers hold, drawn: the activations of one image layer by layer, and the images that excite units most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet.reporting.figures import DEFAULT_COLORS, Colors, new_figure, shorten
from alexnet.reporting.panel_figures import SIGNED_MAP, limits, number, wrap_headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP_COLORS = "viridis"
COLUMNS = 16
_WIDTH = 11.0
_TEXT = 1.55
"""Inches at the left for a layer's name."""
_SCALE = 0.62
"""Inches at the right for a scale."""
_FEATURE_ROWS = 16
_CELL = 1.25
"""Side of a picture of `unit_rows`, inches."""


class LayerDrawing(NamedTuple):
    """One layer of one image."""

    name: str
    shape: str
    """As in "96 x 55 x 55"."""
    values: np.ndarray
    """(M, h, w): the maps that are shown; or (D,) features."""
    numbers: Sequence[int]
    """Which maps they are, counted from 0; empty for features."""


def strongest_maps(maps: np.ndarray, count: int) -> list[int]:
    """The `count` maps of (C, h, w) with the largest mean absolute value, largest first."""
    order = np.argsort(-np.abs(maps).mean(axis=(1, 2)), kind="stable")
    return [int(index) for index in order[:count]]


def activation_rows(
    headline: str,
    picture: np.ndarray,
    layers: Sequence[LayerDrawing],
    guesses: Sequence[tuple[str, float]],
    colors: Colors = DEFAULT_COLORS,
) -> Figure:
    """The image, then a row of maps for each layer with its own scale, then the best guesses with probabilities."""
    inner = _WIDTH - _TEXT - _SCALE
    heights = [_height(layer, inner) for layer in layers]
    lines = wrap_headline(headline, _WIDTH)
    top = 1.9
    figure = new_figure(_WIDTH, top + sum(heights) + 0.09 * len(heights) + 0.22 * len(lines) + 0.25)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, color=colors.ink)
    grid = figure.add_gridspec(len(layers) + 1, 3, height_ratios=[top, *heights], width_ratios=[_TEXT, inner, 0.1])
    _first_row(figure, grid, picture, guesses, colors)
    for row, layer in enumerate(layers, 1):
        _words(figure.add_subplot(grid[row, 0]), layer, colors)
        axes = figure.add_subplot(grid[row, 1])
        axes.set_axis_off()
        low, high = limits(layer.values, signed=bool((layer.values < 0).any()))
        tiled = _tiled(layer)
        image = axes.imshow(
            tiled, cmap=SIGNED_MAP if low < 0 else MAP_COLORS, vmin=low, vmax=high, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        if len(layer.numbers):
            _number_maps(axes, layer)
        bar = figure.colorbar(image, cax=figure.add_subplot(grid[row, 2]))
        bar.set_ticks([low, high], labels=[number(low), number(high)])
        bar.ax.tick_params(labelsize=8, length=2, colors=colors.ink)
        bar.outline.set_visible(False)
    return figure


def _height(layer: LayerDrawing, width: float) -> float:
    """Inches: square tiles of maps, a low strip of features."""
    return 0.42 if layer.values.ndim == 1 else width / COLUMNS * -(-len(layer.values) // COLUMNS)


def _first_row(figure: Figure, grid, picture: np.ndarray, guesses: Sequence[tuple[str, float]], colors: Colors) -> None:
    inner = grid[0, :].subgridspec(1, 2, width_ratios=[1.9, _WIDTH - 2.4])
    axes = figure.add_subplot(inner[0])
    axes.imshow(picture)
    axes.set_axis_off()
    bars = figure.add_subplot(inner[1])
    for position, (name, probability) in enumerate(guesses):
        bars.barh(position, probability, height=0.8, color=colors.first, alpha=0.4)
        bars.text(0.006, position, shorten(name, 60), va="center", fontsize=9.5, color=colors.ink)
        bars.text(1.065, position, f"{probability:.1%}", va="center", ha="right", fontsize=9.5, color=colors.ink)
    bars.set_xlim(0, 1.07)
    bars.set_ylim(max(len(guesses), 5) - 0.4, -0.6)
    bars.set_axis_off()


def _words(axes: Axes, layer: LayerDrawing, colors: Colors) -> None:
    axes.set_axis_off()
    axes.text(0, 0.62, layer.name, fontsize=10.5, fontweight="bold", color=colors.ink, va="center")
    axes.text(0, 0.2, layer.shape, fontsize=8.5, color=colors.ink, va="center")


def _tiled(layer: LayerDrawing) -> np.ndarray:
    """Maps side by side with a gap between them, or features line by line; NaN where there is nothing."""
    if layer.values.ndim == 1:
        rows = _FEATURE_ROWS if len(layer.values) >= 16 * _FEATURE_ROWS else 1
        filled = np.full(-(-len(layer.values) // rows) * rows, np.nan)
        filled[: len(layer.values)] = layer.values
        return filled.reshape(rows, -1)
    side, gap = _tile(layer)
    rows = -(-len(layer.values) // COLUMNS)
    tiled = np.full((rows * (side + gap) - gap, COLUMNS * (side + gap) - gap), np.nan)
    for index, one in enumerate(layer.values):
        top, left = (index // COLUMNS) * (side + gap), (index % COLUMNS) * (side + gap)
        tiled[top : top + side, left : left + side] = one.repeat(side // len(one), 0).repeat(side // len(one), 1)
    return tiled


def _tile(layer: LayerDrawing) -> tuple[int, int]:
    """Side of a map and of the gap to the next one; a small map has several cells for each of its units."""
    units = layer.values.shape[1]
    side = units * max(1, 32 // units)
    return side, max(1, side // 24)


def _number_maps(axes: Axes, layer: LayerDrawing) -> None:
    from matplotlib.patheffects import withStroke

    side, gap = _tile(layer)
    for index, which in enumerate(layer.numbers):
        top, left = (index // COLUMNS) * (side + gap), (index % COLUMNS) * (side + gap)
        text = axes.text(left + 0.06 * side, top + 0.06 * side, str(which), fontsize=6.5, color="white", va="top")
        text.set_path_effects([withStroke(linewidth=1.4, foreground="black")])


class UnitDrawing(NamedTuple):
    """A unit with the images that excite it most, strongest first."""

    title: str
    crops: Sequence[np.ndarray]
    """(h, w, 3) uint8, what the network sees of each."""
    boxes: Sequence[tuple[int, int, int, int]]
    """(top, left, bottom, right) of what the unit sees of each crop, in pixels."""
    captions: Sequence[str]
    """Of one line or two."""


def unit_rows(headline: str, units: Sequence[UnitDrawing], colors: Colors = DEFAULT_COLORS) -> Figure:
    """For each unit its images with the receptive field marked, and below each what lies in the field, enlarged.

    Where the fields are the whole crops there is one line instead of two.
    """
    columns = max(len(unit.crops) for unit in units)
    is_whole = all(
        box == (0, 0, *crop.shape[:2]) for unit in units for crop, box in zip(unit.crops, unit.boxes, strict=True)
    )
    # A title, one line of pictures or two, and their captions.
    heights = [0.3, _CELL, 0.36] if is_whole else [0.3, _CELL, _CELL, 0.36]
    width = _CELL * columns + 0.3
    lines = wrap_headline(headline, width)
    figure = new_figure(width, len(units) * (sum(heights) + 0.1) + 0.22 * len(lines) + 0.2)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, color=colors.ink)
    grid = figure.add_gridspec(len(units) * len(heights), columns, height_ratios=heights * len(units))
    for index, unit in enumerate(units):
        first = index * len(heights)
        _text(figure.add_subplot(grid[first, :]), unit.title, colors, is_title=True)
        side = max(max(bottom - top, right - left) for top, left, bottom, right in unit.boxes)
        for column, (crop, box, caption) in enumerate(zip(unit.crops, unit.boxes, unit.captions, strict=True)):
            _crop(figure.add_subplot(grid[first + 1, column]), crop, None if is_whole else box, colors)
            if not is_whole:
                _enlarged(figure.add_subplot(grid[first + 2, column]), crop, box, side)
            _text(figure.add_subplot(grid[first + len(heights) - 1, column]), caption, colors)
    return figure


def _text(axes: Axes, text: str, colors: Colors, *, is_title: bool = False) -> None:
    axes.set_axis_off()
    if is_title:
        axes.text(0, 0.3, text, fontsize=9.5, fontweight="bold", color=colors.ink, va="center")
    else:
        lines = "\n".join(shorten(line, 18) for line in text.split("\n"))
        axes.text(0.5, 1, lines, fontsize=8, color=colors.ink, va="top", ha="center")


def _enlarged(axes: Axes, crop: np.ndarray, box: tuple[int, int, int, int], side: int) -> None:
    """What lies in the box, in the middle of a square of `side` pixels: one scale for all, also for cut-off fields."""
    top, left, bottom, right = box
    axes.set_axis_off()
    axes.imshow(crop[top:bottom, left:right])
    middle = (right - left) / 2 - 0.5, (bottom - top) / 2 - 0.5
    axes.set_xlim(middle[0] - side / 2, middle[0] + side / 2)
    axes.set_ylim(middle[1] + side / 2, middle[1] - side / 2)


def _crop(axes: Axes, crop: np.ndarray, box: tuple[int, int, int, int] | None, colors: Colors) -> None:
    from matplotlib.patches import Rectangle

    axes.set_axis_off()
    axes.imshow(crop)
    if box is not None:
        top, left, bottom, right = box
        frame = (left - 0.5, top - 0.5), right - left, bottom - top
        axes.add_patch(Rectangle(*frame, fill=False, edgecolor="white", linewidth=2.6))
        axes.add_patch(Rectangle(*frame, fill=False, edgecolor=colors.second, linewidth=1.4))
        # A frame at the edge would be cut in half.
        margin = 0.02 * crop.shape[1]
        axes.set_xlim(-0.5 - margin, crop.shape[1] - 0.5 + margin)
        axes.set_ylim(crop.shape[0] - 0.5 + margin, -0.5 - margin)

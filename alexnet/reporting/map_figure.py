"""A data set as a map: one point an image, classes told apart by colour and shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alexnet.reporting.figures import DEFAULT_COLORS, Colors, new_figure, shorten
from alexnet.reporting.panel_figures import wrap_headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASS_COLORS = (
    *("#1f5fa8", "#c2571a", "#2a7f4f", "#8a4fa3", "#b8252e"),
    *("#8a6d00", "#1a8f9c", "#d65f9e", "#555555", "#6fae1f"),
)
MARKERS = "os^D"
MAX_NAMED = len(CLASS_COLORS) * 2
"""With more classes only the most frequent ones are named; the others are grey."""
_WIDTH, _HEIGHT = 10.0, 6.4
_SHAPE = 1.3
"""Width of the map itself over its height."""
_THUMBNAIL = 0.034
"""Side of a thumbnail, as a share of the map."""


def class_map(
    headline: str,
    points: np.ndarray,
    names: Sequence[str | None],
    order: Sequence[str],
    picture: Callable[[int], np.ndarray] | None = None,
    colors: Colors = DEFAULT_COLORS,
) -> Figure:
    """Points (N, 2) in the colours of their classes, with a legend; `names` has each one's class, None if unknown.

    order: the classes as the legend has them. picture(i), (h, w, 3) uint8: images are drawn instead of points, as many
    as there is room for without covering each other; the remaining ones stay points.
    """
    counts = Counter(name for name in names if name is not None)
    frequent = [name for name, _ in counts.most_common(MAX_NAMED)]
    shown = [name for name in dict.fromkeys(order) if name in frequent]
    lines = wrap_headline(headline, _WIDTH)
    figure = new_figure(_WIDTH, _HEIGHT + 0.22 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, color=colors.ink)
    axes = figure.add_subplot()
    _frame(axes, points, colors)
    kinds = {name: (CLASS_COLORS[i % 10], MARKERS[i % 4]) for i, name in enumerate(shown)}
    rest = [i for i, name in enumerate(names) if name not in kinds]
    size = float(np.clip(9000 / max(len(points), 1), 7, 42))
    if rest:
        label = "no class known" if not counts else f"{len(counts) - len(shown)} other classes"
        axes.scatter(*points[rest].T, s=size, color=colors.faint, alpha=0.6, linewidths=0, label=label)
    for name, (color, marker) in kinds.items():
        own = [i for i, other in enumerate(names) if other == name]
        axes.scatter(
            *points[own].T, s=size, color=color, marker=marker, alpha=0.8, linewidths=0, label=shorten(name, 24)
        )
    if picture is not None:
        _thumbnails(axes, points, picture, [kinds.get(name or "", (colors.faint, ""))[0] for name in names])
    figure.legend(frameon=False, fontsize=9.5, labelcolor=colors.ink, loc="outside right center", markerscale=1.3)
    return figure


def _frame(axes: Axes, points: np.ndarray, colors: Colors) -> None:
    """Equal scales, no numbers: neither the position nor the unit of a t-SNE map means anything."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colors.faint)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    # Of the shape of the page, so that equal scales leave nothing of it empty.
    half_height = 0.54 * max(high[1] - low[1], (high[0] - low[0]) / _SHAPE)
    axes.set_xlim(middle[0] - half_height * _SHAPE, middle[0] + half_height * _SHAPE)
    axes.set_ylim(middle[1] - half_height, middle[1] + half_height)
    axes.set_aspect("equal", adjustable="box", anchor="W")


def _thumbnails(axes: Axes, points: np.ndarray, picture: Callable[[int], np.ndarray], edges: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    limits = axes.get_xlim(), axes.get_ylim()
    side = _THUMBNAIL * (limits[0][1] - limits[0][0])
    for index in without_overlap(points, side * 1.12):
        x, y = points[index]
        left, right, bottom, top = x - side / 2, x + side / 2, y - side / 2, y + side / 2
        axes.imshow(picture(index), extent=(left, right, bottom, top), zorder=3, interpolation="bilinear")
        axes.add_patch(
            Rectangle((left, bottom), side, side, fill=False, edgecolor=edges[index], linewidth=1.2, zorder=4)
        )
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def without_overlap(points: np.ndarray, distance: float) -> list[int]:
    """Indices of points, the first ones first, of which no two are nearer than `distance` in both directions."""
    chosen: list[int] = []
    for index, point in enumerate(points):
        if not (np.abs(points[chosen] - point) < distance).all(axis=1).any():
            chosen.append(index)
    return chosen

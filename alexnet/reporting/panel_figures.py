"""Pictures beside what a network makes of them: rows of panels, each with the scale of its colours."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet.reporting.figures import DEFAULT_COLORS, Colors, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 10.0
"""Of a figure, inches, where its panels can share it out."""
_MIN_PANEL, _MAX_PANEL = 2.4, 3.6
POSITIVE_MAP, SIGNED_MAP, PLAIN_MAP = "inferno", "RdBu_r", "gray"
_LINE = 0.2
"""Height of a line of text, inches."""
_TITLE_LETTERS = 34


class Panel(NamedTuple):
    """A picture, or numbers for pixels that are shown as colours with their scale below."""

    title: str
    """One line or two."""
    values: np.ndarray
    """(h, w, 3) uint8: shown as it is; (h, w) float: as colours."""
    under: np.ndarray | None = None
    """(h, w, 3) uint8: a picture that the colours are laid over."""
    signed: bool = False
    """Colours on both sides of zero."""
    unit: str = ""
    """What the numbers are, for the scale."""
    box: tuple[float, float, float, float] | None = None
    """(top, left, bottom, right) of a frame drawn on it, in pixels."""


def panel_rows(headline: str, rows: Sequence[Sequence[Panel]], colors: Colors = DEFAULT_COLORS) -> Figure:
    """Rows of panels under a headline; colours go from zero, or the lowest number if that is below, to the highest."""
    columns = max(len(row) for row in rows)
    side = min(max(_WIDTH / columns, _MIN_PANEL), _MAX_PANEL)
    heights = [max(panel.values.shape[0] / panel.values.shape[1] for panel in row) * side for row in rows]
    width = side * columns + 0.2
    lines = wrap_headline(headline, width)
    titles = max(panel.title.count("\n") for row in rows for panel in row) + 1
    scaled = [panel for row in rows for panel in row if panel.values.ndim == 2]
    below = 0.1 if not scaled else 0.56 if any(panel.unit for panel in scaled) else 0.4
    figure = new_figure(width, sum(heights) + len(rows) * (titles * _LINE + below) + _LINE * (len(lines) + 0.7))
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(hspace=0, h_pad=0.03)  # type: ignore[call-arg]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, color=colors.ink)
    grid = figure.add_gridspec(
        2 * len(rows), columns, height_ratios=[part for height in heights for part in (height, 0.09)]
    )
    for index, row in enumerate(rows):
        for column, panel in enumerate(row):
            axes = figure.add_subplot(grid[2 * index, column])
            scale = _draw(axes, panel, colors)
            if scale is not None:
                bar = figure.colorbar(
                    scale, cax=figure.add_subplot(grid[2 * index + 1, column]), orientation="horizontal"
                )
                _label(bar, panel.unit, colors)
    return figure


def wrap_headline(text: str, width: float) -> list[str]:
    """Lines of a headline of 11 points that fit a figure of `width` inches."""
    return [line for part in text.split("\n") for line in textwrap.wrap(part, int(12.2 * width))]


def _draw(axes: Axes, panel: Panel, colors: Colors):
    """Draw a panel; returns what its scale is made of, None for a picture."""
    from matplotlib.patches import Rectangle

    lines = [shorten(line, _TITLE_LETTERS) for line in panel.title.split("\n")]
    axes.set_title("\n".join(lines), fontsize=9.5, color=colors.ink)
    axes.set_axis_off()
    height, width = panel.values.shape[:2]
    scale = None
    if panel.values.ndim == 3:
        axes.imshow(panel.values)
    else:
        if panel.under is not None:
            axes.imshow(grey(panel.under), cmap="gray", vmin=0, vmax=255)
        low, high = limits(panel.values, panel.signed)
        kind = SIGNED_MAP if panel.signed else POSITIVE_MAP if panel.under is not None else PLAIN_MAP
        opacity = 1.0 if panel.under is None else 0.6
        scale = axes.imshow(panel.values, cmap=kind, vmin=low, vmax=high, alpha=opacity)
    if panel.box is not None:
        top, left, bottom, right = panel.box
        frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="white")
        frame.set_linestyle((0, (4, 3)))
        axes.add_patch(frame)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return scale


def limits(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """The numbers at the ends of a scale: equally far from zero where it is signed; never the same."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    else:
        low = min(low, 0.0)
    return (low, high) if high > low else (low, low + 1.0)


def grey(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 as brightness (h, w), 0-255 (ITU-R BT.601)."""
    return pixels @ np.array([0.299, 0.587, 0.114])


def _label(bar, unit: str, colors: Colors) -> None:
    """Three numbers at most on a scale, and what they are."""
    low, high = bar.vmin, bar.vmax
    ticks = [low, 0.0, high] if low < 0 < high else [low, high]
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.ax.tick_params(labelsize=8, length=2, colors=colors.ink)
    labels = bar.ax.get_xticklabels()
    labels[0].set_ha("left")
    labels[-1].set_ha("right")
    bar.outline.set_visible(False)
    if unit:
        bar.set_label(unit, fontsize=8, color=colors.ink, labelpad=1)


def number(value: float) -> str:
    """A number with two or three digits, as people write it."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.3g}"

"""Drawings of a run, as matplotlib figures or pixels; matplotlib is imported when the first one is drawn.

Every function returns a new Figure that belongs to no window or backend: nothing has to be closed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet.runtime.text import printable, printable_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 200
"""A curve of more points is averaged down to this many; a long run logs a hundred thousand."""
MAX_TICK_NAMES = 40


@dataclass(frozen=True)
class Colors:
    """Colours by their part in a drawing, as matplotlib takes them."""

    ink: str = "#222222"
    faint: str = "#9a9a9a"
    first: str = "#1f5fa8"
    second: str = "#c2571a"


DEFAULT_COLORS = Colors()


def loss_curve(steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]],
               colors: Colors = DEFAULT_COLORS) -> Figure:  # fmt: skip
    """Training and validation loss (nats) against epochs, from events of metrics.jsonl."""
    figure, axes = new_panel("loss", colors)
    epochs, values = series(steps, "loss")
    _line(axes, epochs, values, colors.first, "training")
    val_epochs, val_values = series(evaluations, "loss")
    _dots(axes, val_epochs, val_values, colors.second, "validation")
    shown = np.concatenate([thin(epochs, values)[1], val_values])
    if len(shown):
        # The first steps of a run may be far above all others; they would flatten the rest.
        axes.set_ylim(0, 1.08 * max(float(np.percentile(shown, 97)), 1e-6))
    _finish(axes, steps, colors)
    return figure


def error_curve(steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]],
                colors: Colors = DEFAULT_COLORS) -> Figure:  # fmt: skip
    """Top-1 error in percent against epochs: of the training batches, and of the validation images."""
    figure, axes = new_panel("top-1 error, %", colors)
    epochs, values = series(steps, "top1_error")
    _line(axes, epochs, 100 * values, colors.first, "training batches")
    val_epochs, val_values = series(evaluations, "top1_error")
    _dots(axes, val_epochs, 100 * val_values, colors.second, "validation")
    axes.set_ylim(bottom=0)
    _finish(axes, steps, colors)
    return figure


def rate_curve(steps: Sequence[Mapping[str, Any]], colors: Colors = DEFAULT_COLORS) -> Figure:
    """Learning rate against epochs, on a logarithmic scale."""
    figure, axes = new_panel("learning rate", colors)
    epochs, values = series([step for step in steps if (step.get("lr") or 0) > 0], "lr")
    axes.plot(epochs, values, color=colors.first, linewidth=1.6, drawstyle="steps-post")
    if len(values):
        axes.set_yscale("log")
        low, high = float(values.min()), float(values.max())
        axes.set_ylim(min(low / 2, high / 20), high * 2)
        axes.minorticks_off()
    _finish(axes, [], colors)
    return figure


def series(events: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of `key`, both float64, of the events that have it as a finite number."""
    pairs = [(event["epoch"], event[key]) for event in events if _is_number(event.get("epoch"), event.get(key))]
    array = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _is_number(*values: object) -> bool:
    return all(isinstance(value, int | float) and np.isfinite(value) for value in values)


def thin(x: np.ndarray, y: np.ndarray, max_points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `max_points` points: means over equal runs of neighbours."""
    if len(x) <= max_points:
        return x, y
    edges = np.linspace(0, len(x), max_points + 1).astype(np.int64)
    counts = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / counts, np.add.reduceat(y, edges[:-1]) / counts


def rate_drops(steps: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(epoch, new rate) of each sudden fall of the learning rate, to 0.7 or less of a rate that had been constant."""
    rates = [(float(step["epoch"]), float(step["lr"])) for step in steps if "epoch" in step and step.get("lr")]
    drops = []
    for index in range(1, len(rates)):
        old, (epoch, new) = rates[index - 1][1], rates[index]
        was_constant = index == 1 or math.isclose(rates[index - 2][1], old, rel_tol=1e-6)
        if new <= 0.7 * old and was_constant:
            drops.append((epoch, new))
    return drops


def kernel_mosaic(kernels: np.ndarray, *, columns: int = 16, gap: int = 1) -> np.ndarray:
    """Kernels (O, 3, h, w) laid out in rows as RGBA pixels (H, W, 4) uint8, transparent between them.

    Each kernel is scaled by its own greatest absolute weight: grey is zero, so that shape and colour show whatever the
    size of the weights.
    """
    count, _, height, width = kernels.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    mosaic = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for index, kernel in enumerate(np.nan_to_num(kernels)):
        scale = max(float(np.abs(kernel).max()), np.finfo(np.float32).tiny)
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        cell = mosaic[top : top + height, left : left + width]
        cell[..., :3] = np.rint(127.5 * (1 + kernel.transpose(1, 2, 0) / scale))
        cell[..., 3] = 255
    return mosaic


def confusion_matrix(confusion: np.ndarray, names: Sequence[str], colors: Colors = DEFAULT_COLORS) -> Figure:
    """Share of each true class (rows) that was guessed as each class (columns); names up to 40 classes."""
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    from matplotlib.colors import to_rgb

    # Colour by opacity, so that it can lie on any background; the root makes rare confusions visible.
    pixels = np.empty((*confusion.shape, 4))
    pixels[..., :3] = to_rgb(DEFAULT_COLORS.first)
    pixels[..., 3] = np.sqrt(confusion / totals)
    figure = new_figure(6.4, 6.4)
    axes = figure.add_subplot()
    axes.imshow(pixels, interpolation="nearest")
    style(axes, colors)
    axes.set_xlabel("guessed class")
    axes.set_ylabel("true class")
    if len(names) <= MAX_TICK_NAMES:
        short = [tick_name(name, 16) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), short, fontsize=8)
    for spine in axes.spines.values():
        spine.set_visible(True)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """A figure without pyplot: no window system, no list of open figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    FigureCanvasAgg(figure)
    return figure


def new_panel(title: str, colors: Colors, size: tuple[float, float] = (4.4, 3.1)) -> tuple[Figure, Axes]:
    """A figure of `size` inches with one pair of axes against epochs, to draw curves in."""
    figure = new_figure(*size)
    axes = figure.add_subplot()
    style(axes, colors)
    axes.set_title(title, loc="left", fontsize=11.5, color=colors.ink)
    axes.set_xlabel("epoch", fontsize=10.5)
    axes.locator_params(axis="y", nbins=6)
    return figure, axes


def style(axes: Axes, colors: Colors) -> None:
    """No background, no frame but the two axes, everything in the colours of the drawing."""
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colors.faint)
    axes.tick_params(colors=colors.ink, labelsize=10, length=3, which="both")
    axes.xaxis.label.set_color(colors.ink)
    axes.yaxis.label.set_color(colors.ink)


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str) -> None:
    if len(x):
        axes.plot(*thin(x, y), color=color, linewidth=1.4, label=label)


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str) -> None:
    if len(x):
        axes.plot(x, y, color=color, linewidth=1.4, marker="o", markersize=4 if len(x) <= 30 else 0, label=label)


def _finish(axes: Axes, steps: Sequence[Mapping[str, Any]], colors: Colors) -> None:
    axes.grid(axis="y", color=colors.faint, alpha=0.25, linewidth=0.8)
    axes.set_xlim(left=0)
    for index, (epoch, _) in enumerate(rate_drops(steps)):
        label = "learning rate drop" if index == 0 else None
        axes.axvline(epoch, color=colors.faint, linewidth=1, linestyle=(0, (3, 3)), label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=10, labelcolor=colors.ink, loc="upper right")


def shorten(name: str, length: int = 22) -> str:
    """Return a name of at most `length` characters that can be shown."""
    name = printable(name[: length + 1])
    return name if len(name) <= length else name[: length - 2] + ".."


def tick_name(name: str, length: int = 22) -> str:
    """Return a name as `shorten` does, for the ticks of an axis: those of numbers need mathematics, a name has none."""
    return shorten(name, length).replace("$", r"\$")


@contextmanager
def names_as_they_are(figure: Figure) -> Iterator[None]:
    """Write a figure in this block: names from files are neither mathematics nor control characters.

    A letter that the font lacks is drawn as a box, without a warning.
    """
    from matplotlib.text import Text

    of_axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [tick for axis in of_axes for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())]
    kept = {id(text) for tick in ticks for text in (tick.label1, tick.label2)}
    kept |= {id(axis.get_offset_text()) for axis in of_axes}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in kept:
            text.set_parse_math(False)
            text.set_text(printable_lines(text.get_text()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield

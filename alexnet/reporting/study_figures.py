"""Drawings of the studies: kernels in banks, guesses, neighbours, signals layer by layer, losses side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet.reporting.figures import DEFAULT_COLORS, Colors, kernel_mosaic, new_figure, shorten, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = (
    ("#1f5fa8", "-", "o"),
    ("#c2571a", "-", "s"),
    ("#2a7f4f", "--", "^"),
    ("#8a4fa3", "-.", "D"),
    ("#555555", ":", "v"),
    ("#b0861a", (0, (5, 1, 1, 1, 1, 1)), "X"),
)
"""Colour, stroke and marker of lines side by side: told apart without colour too."""


class Bank(NamedTuple):
    """Kernels that are shown together."""

    title: str
    kernels: np.ndarray
    """(O, 3, h, w), RGB."""


def kernel_banks(title: str, banks: Sequence[Bank], colors: Colors = DEFAULT_COLORS) -> Figure:
    """Banks of kernels one under the other, in rows of 16 (paper, Figure 3); grey is zero."""
    mosaics = [kernel_mosaic(bank.kernels) for bank in banks]
    width = 8.0
    heights = [width * mosaic.shape[0] / mosaic.shape[1] for mosaic in mosaics]
    lines = textwrap.wrap(title, 88)
    figure = new_figure(width, sum(heights) + 0.34 * len(banks) + 0.28 * len(lines) + 0.1)
    _headline(figure, "\n".join(lines), colors)
    grid = figure.add_gridspec(len(banks), 1, height_ratios=heights)
    for row, (bank, mosaic) in enumerate(zip(banks, mosaics, strict=True)):
        axes = figure.add_subplot(grid[row])
        axes.imshow(mosaic, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(bank.title, loc="left", fontsize=10.5, color=colors.ink)
    return figure


def color_shares(networks: Mapping[str, Sequence[tuple[str, np.ndarray]]], colors: Colors = DEFAULT_COLORS) -> Figure:
    """For each network the colour shares of its banks' kernels, in rising order, one line a bank."""
    figure = new_figure(4.3 * len(networks), 3.4)
    for column, (name, banks) in enumerate(networks.items()):
        axes = figure.add_subplot(1, len(networks), column + 1)
        style(axes, colors)
        axes.set_title(name, loc="left", fontsize=11.5, color=colors.ink)
        for (label, shares), (color, stroke, marker) in zip(banks, cycle(LINES), strict=False):
            ranks = np.arange(1, len(shares) + 1)
            axes.plot(ranks, np.sort(shares), color=color, linestyle=stroke, marker=marker, markersize=3.2, label=label)
        axes.axhline(2 / 3, color=colors.faint, linewidth=1, linestyle=(0, (3, 3)), label="noise: 2/3")
        axes.set_ylim(0, 1.02)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("kernels of the bank, greyest first", fontsize=10.5)
        axes.set_ylabel("colour share of the energy" if column == 0 else "", fontsize=10.5)
        axes.legend(frameon=False, fontsize=9.5, labelcolor=colors.ink, loc="best")
    return figure


class Guesses(NamedTuple):
    """An image with its best guesses."""

    square: np.ndarray
    """(S, S, 3) uint8."""
    truth: str
    best: Sequence[tuple[str, float, bool]]
    """(name, probability, whether it is the true class), best first."""


def guess_cards(cards: Sequence[Guesses], columns: int = 4, colors: Colors = DEFAULT_COLORS) -> Figure:
    """Images with their true class and their best guesses as bars, the true one coloured (paper, Figure 4 left)."""
    rows = -(-len(cards) // columns)
    figure = new_figure(2.45 * columns, 4.05 * rows + 0.3)
    _headline(figure, "Validation images and their best guesses; the bar of the true class is orange.", colors)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[1.75, 1] * rows)
    for index, card in enumerate(cards):
        row, column = divmod(index, columns)
        _picture(figure.add_subplot(grid[2 * row, column]), card.square, shorten(card.truth, 24), colors)
        _bars(figure.add_subplot(grid[2 * row + 1, column]), card.best, colors)
    return figure


def _bars(axes: Axes, best: Sequence[tuple[str, float, bool]], colors: Colors) -> None:
    for position, (name, probability, is_true) in enumerate(best):
        axes.barh(position, probability, height=0.86, color=colors.second if is_true else colors.first, alpha=0.38)
        axes.text(0.02, position, shorten(name, 24), va="center", fontsize=9, color=colors.ink)
        axes.text(0.985, position, f"{probability:.0%}", va="center", ha="right", fontsize=8.5, color=colors.ink)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(best) - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.patch.set_alpha(0)
    for spine in axes.spines.values():
        spine.set_color(colors.faint)


class Nearest(NamedTuple):
    """An image, and those that are nearest to it."""

    square: np.ndarray
    name: str
    neighbours: Sequence[tuple[np.ndarray, str, bool]]
    """(square, caption, whether it is of the image's class), nearest first."""


VALIDATION_AND_TRAINING = (
    "Left: validation images. Right: the training images nearest to each; another class in orange."
)


def neighbour_rows(
    rows: Sequence[Nearest], colors: Colors = DEFAULT_COLORS, headline: str = VALIDATION_AND_TRAINING
) -> Figure:
    """One row an image: itself, then its nearest ones (paper, Figure 4 right); another class is named in colour."""
    columns = max(len(row.neighbours) for row in rows)
    lines = 1 + max(caption.count("\n") for row in rows for _, caption, _ in row.neighbours)
    heights = [1.36, 0.17 * lines + 0.06]
    width = 1.42 * (columns + 1) + 0.3
    headline = "\n".join(textwrap.wrap(headline, int(11.5 * width)))
    figure = new_figure(width, (sum(heights) + 0.1) * len(rows) + 0.22 * headline.count("\n") + 0.3)
    # A narrow empty column stands between the image and what was found.
    grid = figure.add_gridspec(
        2 * len(rows), columns + 2, width_ratios=[1, 0.08, *[1] * columns], height_ratios=heights * len(rows)
    )
    for index, row in enumerate(rows):
        pictures = [(row.square, row.name, colors.ink)]
        pictures += [(square, name, colors.ink if same else colors.second) for square, name, same in row.neighbours]
        for position, (square, caption, color) in enumerate(pictures):
            column = position + 1 if position else 0
            axes = figure.add_subplot(grid[2 * index, column])
            axes.imshow(square)
            axes.set_axis_off()
            below = figure.add_subplot(grid[2 * index + 1, column])
            below.set_axis_off()
            text = "\n".join(shorten(line, 16) for line in caption.split("\n"))
            weight = "normal" if position else "bold"
            below.text(0.5, 1, text, ha="center", va="top", fontsize=9, fontweight=weight, color=color)
    _headline(figure, headline, colors)
    return figure


def _headline(figure: Figure, text: str, colors: Colors) -> None:
    figure.suptitle(text, x=0.007, ha="left", fontsize=11.5, color=colors.ink)


def _picture(axes: Axes, square: np.ndarray, caption: str, colors: Colors) -> None:
    axes.imshow(square)
    axes.set_axis_off()
    # Below the picture, as in the paper.
    axes.text(
        0.5, -0.04, caption, transform=axes.transAxes, ha="center", va="top", fontsize=9, fontweight="bold",
        color=colors.ink,
    )  # fmt: skip


def layer_panels(
    layers: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]], colors: Colors = DEFAULT_COLORS
) -> Figure:
    """For each panel (its title) a logarithmic line for each name over the layers."""
    figure = new_figure(4.5 * len(panels), 4.2)
    places = range(len(layers))
    for column, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), column + 1)
        style(axes, colors)
        axes.set_title(title, loc="left", fontsize=11.5, color=colors.ink)
        for (name, values), (color, stroke, marker) in zip(lines.items(), cycle(LINES), strict=False):
            axes.plot(places, values, color=color, linestyle=stroke, marker=marker, markersize=4.5, label=name)
        axes.set_yscale("log")
        axes.set_xticks(places, layers, fontsize=9.5)
        axes.grid(axis="y", color=colors.faint, alpha=0.25, linewidth=0.8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=10,
        labelcolor=colors.ink,
    )  # fmt: skip
    return figure


def losses_beside(
    curves: Mapping[str, np.ndarray], level: float, level_name: str, window: int, colors: Colors = DEFAULT_COLORS
) -> Figure:
    """Training losses by step: the single steps faint, their running mean over `window` steps strong."""
    figure = new_figure(7.4, 4.2)
    axes = figure.add_subplot()
    style(axes, colors)
    axes.set_title("training loss, nats", loc="left", fontsize=11.5, color=colors.ink)
    lowest = level
    for (name, losses), (color, stroke, _) in zip(curves.items(), cycle(LINES), strict=False):
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, color=color, linewidth=0.7, alpha=0.25)
        if len(losses) >= window:
            means = np.convolve(losses, np.ones(window) / window, mode="valid")
            lowest = min(lowest, float(means.min()))
            axes.plot(steps[window - 1 :], means, color=color, linestyle=stroke, linewidth=1.9, label=name)
    axes.axhline(level, color=colors.ink, linewidth=0.9, linestyle=(0, (3, 3)), label=level_name)
    axes.set_ylim(0.8 * lowest, 1.3 * level)
    axes.set_xlim(left=0)
    axes.set_xlabel("step", fontsize=10.5)
    axes.grid(axis="y", color=colors.faint, alpha=0.25, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=colors.ink, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure

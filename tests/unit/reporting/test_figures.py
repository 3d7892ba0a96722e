import html
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.reporting import figures
from alexnet.reporting.page import SVG_COLORS, svg
from alexnet.reporting.pictures import save_picture

STEPS = [
    {"step": i, "epoch": i / 10, "loss": 2.0 / (1 + i), "top1_error": 0.5, "lr": 0.01 if i < 30 else 0.001}
    for i in range(60)
]


@given(st.integers(1, 1000), st.integers(1, 50))
def test_a_thinned_curve_keeps_its_mean_and_its_limit(count, max_points):
    x = np.arange(count, dtype=np.float64)
    y = np.random.default_rng(count).normal(size=count)
    thin_x, thin_y = figures.thin(x, y, max_points)
    assert len(thin_x) == len(thin_y) == min(count, max_points)
    assert (np.diff(thin_x) > 0).all()
    if count % max_points == 0 or count <= max_points:
        assert thin_y.mean() == pytest.approx(y.mean())


def test_numbers_that_are_missing_or_not_finite_are_left_out():
    events = [
        {"epoch": 0.1, "loss": None},
        {"epoch": 0.2, "loss": float("nan")},
        {"epoch": 0.3, "loss": 1},
        {"loss": 2},
    ]
    epochs, values = figures.series(events, "loss")
    assert epochs.tolist() == [0.3] and values.tolist() == [1.0]


def test_sudden_drops_of_the_rate_are_found_and_smooth_falls_are_not():
    assert figures.rate_drops(STEPS) == [(3.0, 0.001)]
    cosine = [{"epoch": i / 100, "lr": 0.01 * (1 + np.cos(np.pi * i / 100)) / 2} for i in range(100)]
    assert figures.rate_drops(cosine) == []
    assert figures.rate_drops([{"epoch": i, "lr": 0.01 * 0.9**i} for i in range(5)]) == []


def test_kernels_are_scaled_one_by_one_around_grey():
    kernels = np.zeros((3, 3, 2, 2), dtype=np.float32)
    kernels[0, 0, 0, 1] = 0.001
    kernels[1, 2, 1, 0] = -5
    mosaic = figures.kernel_mosaic(kernels, columns=2)
    assert mosaic.shape == (5, 5, 4)
    assert mosaic[0, 1].tolist() == [255, 128, 128, 255]
    assert mosaic[1, 3].tolist() == [128, 128, 0, 255]
    assert mosaic[2].max() == 0  # the gap is transparent
    assert mosaic[3, 0].tolist() == [128, 128, 128, 255] and mosaic[3, 4, 3] == 0


def test_figures_are_made_without_pyplot_keeping_any():
    import matplotlib.pyplot as plt

    made = [
        figures.loss_curve(STEPS, STEPS[::10]),
        figures.error_curve(STEPS, []),
        figures.rate_curve([]),
        figures.confusion_matrix(np.eye(5, dtype=np.int64), list("abcde")),
    ]
    assert plt.get_fignums() == []
    for index, figure in enumerate(made):
        assert svg(figure, f"f{index}", "words").startswith("<svg")


def test_a_drawing_in_a_page_follows_its_colours_and_loads_nothing():
    drawing = svg(figures.loss_curve(STEPS, STEPS[::10], SVG_COLORS), "loss", 'a "quoted" <curve>')
    assert 'aria-label="a &quot;quoted&quot; &lt;curve&gt;"' in drawing
    assert "var(--first)" in drawing and "var(--second)" in drawing and "#0" not in drawing.replace("#loss", "")
    assert "http" not in drawing and "<style" not in drawing and "<metadata" not in drawing
    assert ">validation<" in drawing  # text stays text
    ids = [part.split('"')[0] for part in drawing.split(' id="')[1:]]
    assert ids and all(name.startswith("loss-") for name in ids)
    assert all(f'id="{part.split(chr(34))[0]}"' in drawing for part in drawing.split('href="#')[1:])


HOSTILE = ["$x^{$", "$a$ $", "caf\udce9", "\x1b[2J", "\u202e\ue000", r"\$", "two\nlines"]
SHOWN = ["$x^{$", "$a$ $", r"caf\xe9", r"\u001b[2J", "\\u202e\ue000", r"\$"]


def test_names_are_drawn_as_they_are(tmp_path):
    matrix = figures.confusion_matrix(np.eye(len(HOSTILE), dtype=np.int64), HOSTILE)
    panel, axes = figures.new_panel(HOSTILE[0], SVG_COLORS)
    for name in HOSTILE:
        axes.text(0.2, 1, name)
    axes.plot([0, 1], [1, 2], label=HOSTILE[0])
    axes.legend()
    axes.set_yscale("log")
    for figure in (matrix, panel):
        drawing = html.unescape(svg(figure, "x", "none"))
        for name in SHOWN:
            assert f">{name}<" in drawing, name
        save_picture(figure, tmp_path / "picture.png")
    assert "10^{" not in re.sub("<!--.*?-->", "", drawing)  # numbers of an axis keep their mathematics


def test_no_curve_is_an_empty_panel():
    assert svg(figures.loss_curve([], []), "x", "none")
    assert svg(figures.loss_curve([{"epoch": 0, "loss": None, "lr": 0}], [{"epoch": 1, "loss": 0.0}]), "x", "none")

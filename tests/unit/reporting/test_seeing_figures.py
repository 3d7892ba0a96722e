import numpy as np
import pytest
from PIL import Image

from alexnet.errors import UserError
from alexnet.reporting import study_figures
from alexnet.reporting.activation_figures import (
    LayerDrawing,
    UnitDrawing,
    activation_rows,
    strongest_maps,
    unit_rows,
)
from alexnet.reporting.map_figure import MAX_NAMED, class_map, without_overlap
from alexnet.reporting.panel_figures import Panel, limits, number, panel_rows
from alexnet.reporting.pictures import save_picture

LONG = "a class with a name that goes on for much longer than anybody would want to draw it $a$"
HEADLINE = "What is drawn, of which network, and how it is meant to be read. " * 4
rng = np.random.default_rng(0)


def photograph(height=40, width=40):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def panels():
    row = [
        Panel(f"{LONG}\n62.1%", photograph()),
        Panel(f"{LONG}\n62.1%", rng.random((40, 40)), photograph(), unit="probability"),
        Panel(LONG, rng.normal(size=(40, 40)), photograph(), signed=True, unit="points", box=(2, 2, 30, 30)),
    ]
    wide = [row[0], Panel("flat", np.zeros((20, 60))), Panel("", rng.random((20, 60)) * 1e-7)]
    return panel_rows(HEADLINE, [row, wide])


def activations():
    layers = [
        LayerDrawing("relu_conv6", "20 x 9 x 9", rng.random((20, 9, 9)), list(range(20))),
        LayerDrawing("conv1", "3 x 9 x 9", rng.normal(size=(3, 9, 9)), [70, 0, 12]),
        LayerDrawing("fc6", "4096", rng.normal(size=4096), []),
        LayerDrawing("fc8", "10", np.zeros(10), []),
    ]
    return activation_rows(HEADLINE, photograph(), layers, [(LONG, 0.9), ("other", 0.1)])


def units(box):
    unit = UnitDrawing("conv5, unit 17", [photograph(24, 24)] * 3, [box, (0, 0, 24, 24), box], [LONG, "12.3 cat", ""])
    return unit_rows(HEADLINE, [unit, unit])


def points(num_classes, thumbnails=False):
    names = [f"{i % num_classes} {LONG}" for i in range(80)] if num_classes else [None] * 80
    order = list(dict.fromkeys(name for name in names if name))
    picture = (lambda i: photograph(8, 8)) if thumbnails else None
    return class_map(HEADLINE, rng.normal(size=(80, 2)), names, order, picture)


def guesses():
    best = [(LONG, 0.8, True), ("other", 0.2, False)] + 3 * [("x", 0.0, False)]
    return study_figures.guess_cards([study_figures.Guesses(photograph(), LONG, best)] * 5)


def neighbours():
    found = [(photograph(), f"{LONG}\n12.3", i != 1) for i in range(4)]
    return study_figures.neighbour_rows([study_figures.Nearest(photograph(), LONG, found)] * 2, headline=HEADLINE)


@pytest.mark.parametrize(
    "make",
    [
        panels,
        activations,
        lambda: units((3, 2, 8, 12)),
        lambda: units((0, 0, 24, 24)),
        lambda: points(7),
        lambda: points(MAX_NAMED + 9, thumbnails=True),
        lambda: points(0),
        neighbours,
        guesses,
        lambda: study_figures.kernel_banks(
            HEADLINE, [study_figures.Bank("kernels 1-3", rng.normal(size=(3, 3, 5, 5)))] * 2
        ),
    ],
)
def test_no_text_is_cut_off_and_none_lies_on_another(make):
    figure = make()
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    # Axes that are switched off still have labels of their ticks, which nobody sees.
    hidden = {
        text for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj()
    }
    boxes = []
    for text in figure.findobj(lambda item: type(item).__name__ == "Text"):
        if text.get_text().strip() and text.get_visible() and text not in hidden:
            box = text.get_window_extent(renderer)
            assert box.x0 >= -1 and box.y0 >= -1, text.get_text()
            assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text.get_text()
            boxes.append((text.get_text(), box.padded(-1)))
    assert len(boxes) > 1
    for index, (text, box) in enumerate(boxes):
        for other_text, other in boxes[index + 1 :]:
            assert not box.overlaps(other), (text, other_text)


def test_scales_have_two_ends_and_zero_in_the_middle_where_it_is_one():
    assert limits(np.array([0.2, 0.7]), signed=False) == (0, 0.7)
    assert limits(np.array([-0.2, 0.7]), signed=False) == (-0.2, 0.7)
    assert limits(np.array([-0.9, 0.7, np.nan]), signed=True) == (-0.9, 0.9)
    assert limits(np.zeros(3), signed=False) == (0, 1) and limits(np.zeros(3), signed=True) == (0, 1)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.00833123, "0.00833"), (99.84, "99.8"), (259.6, "260"), (-2.66e-5, "-2.66e-05")]
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_the_strongest_maps_come_first():
    maps = np.zeros((4, 2, 2))
    maps[2] = -5
    maps[0, 0, 0] = 8
    assert strongest_maps(maps, 3) == [2, 0, 1]


def test_thumbnails_do_not_cover_each_other():
    positions = rng.random((200, 2))
    chosen = without_overlap(positions, 0.1)
    assert chosen[0] == 0 and 30 < len(chosen) < 200
    for index, one in enumerate(chosen):
        for other in chosen[index + 1 :]:
            assert np.abs(positions[one] - positions[other]).max() >= 0.1
    left_out = set(range(200)) - set(chosen)
    assert all((np.abs(positions[chosen] - positions[one]).max(axis=1) < 0.1).any() for one in left_out)


def test_pictures_are_the_same_bytes_each_time(tmp_path):
    save_picture(points(3), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        colours = np.asarray(image.convert("RGBA"))
    assert (colours[..., 3] == 255).all() and (colours[0, 0] == 255).all()  # on white, not on nothing
    for kind in ("png", "svg"):
        path = tmp_path / "new" / f"x.{kind}"
        save_picture(points(3), path)
        assert [item.name for item in path.parent.iterdir()] == [path.name]
        path.unlink()
    for name in ("a", "b"):
        global rng
        rng = np.random.default_rng(1)
        save_picture(points(3, thumbnails=True), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
    with pytest.raises(UserError, match=r"written as \.png or \.svg"):
        save_picture(points(0), tmp_path / "x.pdf")

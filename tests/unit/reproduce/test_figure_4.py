import numpy as np
import pytest
from study_stand_ins import bench_of, write_checkpoint

from alexnet.data.squares import ImageSet
from alexnet.reporting.figures import new_figure
from alexnet.reproduce import figure_4
from alexnet.reproduce.figure_4 import same_class_share


def test_the_share_of_neighbours_of_the_same_class():
    labels = np.array([0, 1])
    assert same_class_share(labels, np.array([[0, 0, 1], [0, 0, 1]])) == 0.5


@pytest.mark.parametrize("side", [24, 32, 48, 63])
def test_pixels_are_those_of_the_whole_square(side):
    squares = np.zeros((2, side, side, 3), np.uint8)
    squares[1, -side // 4 :, -side // 4 :] = 255
    pixels = figure_4._small_pixels(ImageSet(np.zeros(2, np.int64), ["a", "b"], side, array=squares), range(2))
    assert pixels.shape == (2, 3 * 32 * 32) and not pixels[0].any() and pixels[1].max() > 200


def test_a_given_network_is_shown(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figure_4, "guess_cards", lambda cards: drawn.update(cards=cards) or new_figure(1, 1))
    monkeypatch.setattr(figure_4, "neighbour_rows", lambda rows: drawn.update(rows=rows) or new_figure(1, 1))
    path = write_checkpoint(tmp_path / "small.pt")
    bench = bench_of(tmp_path / "study", checkpoint=path)
    outcome = figure_4._run(bench)
    by_features, by_pixels, by_chance = outcome.rows
    assert by_features.quantity == "same class among the nearest in relu7"
    assert by_chance.mean == pytest.approx(10)
    assert by_pixels.mean > 11  # colours do tell something
    assert "6 nearest of 120 training images, 200 validation images; small after 7 steps" in by_features.protocol
    assert len(drawn["cards"]) == 8 and len(drawn["rows"]) == 5
    for card in drawn["cards"]:
        probabilities = [probability for _, probability, _ in card.best]
        assert len(card.best) == 5 and probabilities == sorted(probabilities, reverse=True)
        assert [name for name, _, is_true in card.best if is_true] in ([], [card.truth])
    for row in drawn["rows"]:
        assert [name == row.name for _, name, _ in row.neighbours] == [same for _, _, same in row.neighbours]
    (features,) = (tmp_path / "study" / "features").iterdir()
    before = features.stat().st_mtime_ns
    assert figure_4._run(bench).rows == outcome.rows
    assert features.stat().st_mtime_ns == before  # computed once
    write_checkpoint(path, seed=4)
    figure_4._run(bench)
    assert len(list((tmp_path / "study" / "features").iterdir())) == 2  # other weights, other features

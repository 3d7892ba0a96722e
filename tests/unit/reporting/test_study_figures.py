"""What the drawings of the studies show."""

import numpy as np

from alexnet.reporting.study_figures import LINES, layer_panels, losses_beside


def test_no_line_is_left_out_however_many_there_are():
    names = [f"way {number}" for number in range(len(LINES) + 1)]
    panels = layer_panels(["conv1", "conv2"], {"RMS": {name: [1.0, 2.0] for name in names}})
    assert [line.get_label() for line in panels.axes[0].get_lines()] == names
    losses = losses_beside({name: np.ones(9) for name in names}, 2.3, "guessing", 3)
    labels = losses.axes[0].get_legend_handles_labels()[1]
    assert [label for label in labels if label.startswith("way")] == names

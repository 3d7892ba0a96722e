"""The first 3.4 epochs of the 19 % net on CIFAR-10 against the author's log (cuda-convnet wiki, TrainingNet).

The log prints the mean loss over each file of 10,000 training images, and one evaluation on the test file. It is the
sharpest published check of the 2011 networks: the curve falls by 0.8 nats in 17 points, and our seeds differ from each
other by about 0.03.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet.errors import UserError
from alexnet.reporting.figures import DEFAULT_COLORS, new_panel
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import Workbench, over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGGED = {
    "1.1": 2.277909, "1.2": 2.145043, "1.3": 1.983224, "1.4": 1.913032, "1.5": 1.813073,
    "2.1": 1.758718, "2.2": 1.735701, "2.3": 1.666571, "2.4": 1.659595, "2.5": 1.605653,
    "3.1": 1.561900, "3.2": 1.553927, "3.3": 1.497355, "3.4": 1.517817, "3.5": 1.481088,
    "4.1": 1.456526, "4.2": 1.449469,
}  # fmt: skip
"""Epoch.file -> mean training loss over the file, nats (TrainingNet; one run of December 2011 or earlier)."""
LOGGED_TEST = ("3.3", 1.538126)
"""The file after which the log evaluates all test images, and their mean loss."""
STEPS_PER_FILE = 79
"""78 batches of 128 and one of 16 in the log; 79 of 128 here, so our files overlap the next ones by 112 images."""
_SOURCE = "cuda-convnet wiki, TrainingNet"
_STEPS_PER_EPOCH = 50_000 / 128


def run(bench: Workbench) -> Outcome:
    """Train every seed for the 17 files of the log and compare file by file."""
    steps = STEPS_PER_FILE * len(LOGGED)
    test_file, test_loss = LOGGED_TEST
    test_step = STEPS_PER_FILE * (list(LOGGED).index(test_file) + 1)
    # Trainings and evaluations end at the first step that reaches the epoch asked for.
    runs = over_seeds(
        bench,
        "cifar-19pct",
        "cifar-19pct",
        (
            f"train.epochs={(steps - 0.5) / _STEPS_PER_EPOCH:.5f}",
            f"train.evaluate_every_epochs={(test_step - 0.5) / _STEPS_PER_EPOCH:.5f}",
            f"logging.log_every_steps={STEPS_PER_FILE}",
        ),
    )
    losses = {seed: {e["step"]: e["loss"] for e in record.events_of("step")} for seed, record in runs.items()}
    tests = {seed: {e["step"]: e["loss"] for e in record.events_of("evaluation")} for seed, record in runs.items()}
    last = max(step for logged in losses.values() for step in logged)
    if last != steps:
        raise UserError(f"the trace has {steps} steps of 128 images of CIFAR-10's 50,000; these trainings took {last}.")
    rows = [
        Row(
            f"training loss, file {name}", "nats", f"mean over the {STEPS_PER_FILE} steps of the file",
            {seed: logged[STEPS_PER_FILE * (number + 1)] for seed, logged in losses.items()}, published, _SOURCE,
        )
        for number, (name, published) in enumerate(LOGGED.items())
    ]  # fmt: skip
    within = sum(min(row.values.values()) <= published <= max(row.values.values())
                 for row, published in zip(rows, LOGGED.values(), strict=True))  # fmt: skip
    test = Row(
        f"test loss after file {test_file}", "nats", "10,000 test images, the whole image",
        {seed: logged[test_step] for seed, logged in tests.items()}, test_loss, _SOURCE,
    )  # fmt: skip
    count = Row(
        "files of the log between the lowest and the highest seed", "",
        f"of {len(LOGGED)} files; {len(bench.seeds)} seeds here, one run in the log. This range is no interval: "
        "more seeds widen it", {0: within},
    )  # fmt: skip
    return Outcome((*rows, test, count), (bench.save_figure("trace", _draw(rows)),))


def _draw(rows: list[Row]) -> Figure:
    figure, axes = new_panel("mean training loss over 10,000 images, nats", DEFAULT_COLORS, size=(5.2, 3.6))
    places = range(len(rows))
    for seed in rows[0].values:
        label = f"our {len(rows[0].values)} seeds" if seed == next(iter(rows[0].values)) else None
        axes.plot(places, [row.values[seed] for row in rows], color=DEFAULT_COLORS.first, linewidth=1, label=label)
    published = [row.published for row in rows]
    axes.plot(places, published, color=DEFAULT_COLORS.second, marker="o", markersize=4, linewidth=0, label="2011 log")
    axes.set_xticks(list(places)[::2], list(LOGGED)[::2])
    axes.set_xlabel("epoch.file")
    axes.legend(frameon=False, fontsize=9)
    return figure


STUDY = Study(
    name="cifar-19-trace",
    title="The first epochs of the 19 % net on CIFAR-10 against the author's log",
    section="the author's code",
    data="the original files of CIFAR-10 (cifar-10-batches-py)",
    cost="5 minutes for three seeds on one core",
    run=run,
    seeds=(0, 1, 2),
    sets=("train.epochs", "train.evaluate_every_epochs", "logging.log_every_steps"),
)

"""The first 3.4 epochs of the 19 % net on CIFAR-10 against the author's log (cuda-convnet wiki, TrainingNet).

The log prints the mean loss over each file of 10,000 training images, and one evaluation on the test file. It is the
sharpest published check of the 2011 networks: the curve falls by 0.8 nats in 17 points, and our seeds differ from each
other by about 0.03.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import numpy as np

from alexnet.errors import UserError
from alexnet.reporting.figures import DEFAULT_COLORS, new_panel
from alexnet.reporting.run_record import RunRecord
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
IMAGES_PER_FILE = 10_000
_BATCH, _EPOCH = 128, 50_000
_STEPS_PER_EVENT = 5
"""Often enough that a file's mean can be read off between two events, and few enough to keep with the record."""
_SOURCE = "cuda-convnet wiki, TrainingNet"


def run(bench: Workbench) -> Outcome:
    """Train every seed through the 17 files of the log, in the files' own order, and compare file by file.

    The log's batches end with each file (78 of 128 images and one of 16); ours are full, so that a file has 78.125
    steps here and 79 there.
    """
    test_file, test_loss = LOGGED_TEST
    test_epochs = (list(LOGGED).index(test_file) + 1) * IMAGES_PER_FILE / _EPOCH
    runs = over_seeds(
        bench,
        "cifar-19pct",
        "cifar-19pct",
        (
            'data.shuffle="never"',  # some files are harder than others, and the log shows it
            f"train.epochs={len(LOGGED) * IMAGES_PER_FILE / _EPOCH}",
            f"train.evaluate_every_epochs={test_epochs}",
            f"logging.log_every_steps={_STEPS_PER_EVENT}",
        ),
    )
    means = {seed: file_means(record) for seed, record in runs.items()}
    if any(len(files) != len(LOGGED) for files in means.values()):
        raise UserError(f"the log has {len(LOGGED)} files of {IMAGES_PER_FILE:,} images; these trainings saw fewer.")
    rows = [
        Row(
            f"training loss, file {name}", "nats", f"mean over the file's {IMAGES_PER_FILE:,} images while it is "
            "trained on", {seed: files[number] for seed, files in means.items()}, published, _SOURCE,
        )
        for number, (name, published) in enumerate(LOGGED.items())
    ]  # fmt: skip
    tests = {seed: record.events_of("evaluation")[0]["loss"] for seed, record in runs.items()}
    test = Row(
        f"test loss after file {test_file}", "nats", "10,000 test images, the whole image", tests, test_loss, _SOURCE
    )
    return Outcome((*rows, test, *_counts(rows)), (bench.save_figure("trace", _draw(rows)),))


def _counts(rows: list[Row]) -> list[Row]:
    """How many files of the log look like one more run of ours."""
    from scipy import stats  # takes a moment to import

    seeds = len(rows[0].values)
    of = f"of {len(rows)} files; {seeds} seeds here, one run in the log"
    in_range = in_interval = 0
    for row in rows:
        values, published = list(row.values.values()), row.published or 0.0
        in_range += min(values) <= published <= max(values)
        if seeds > 1:
            # The 95 % prediction interval for one more draw from a normal distribution.
            reach = stats.t.ppf(0.975, seeds - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / seeds)
            in_interval += bool(abs(published - statistics.fmean(values)) <= reach)
    expected = len(rows) * (seeds - 1) / (seeds + 1)
    return [
        Row(
            "files of the log between the lowest and the highest seed", "",
            f"{of}. Of a run of the same distribution {expected:.1f} would be expected: this range is no interval",
            {0: in_range},
        ),
        Row(
            "files of the log inside the 95 % prediction interval for one more run", "",
            f"{of}; Student's t, each file by itself. Neighboring files are not independent",
            {0: in_interval} if seeds > 1 else {},
            not_run="" if seeds > 1 else "a prediction interval takes two seeds",
        ),
    ]  # fmt: skip


def file_means(record: RunRecord) -> list[float]:
    """The mean training loss over each whole file of a run, from the sums of its log between two events."""
    steps, sums = [0], [0.0]
    for event in record.events_of("step"):
        sums.append(sums[-1] + event["loss"] * (event["step"] - steps[-1]))
        steps.append(event["step"])
    whole_files = steps[-1] * _BATCH // IMAGES_PER_FILE
    ends = np.interp(np.arange(whole_files + 1) * IMAGES_PER_FILE / _BATCH, steps, sums)
    return [float(mean) for mean in np.diff(ends) * _BATCH / IMAGES_PER_FILE]


def _draw(rows: list[Row]) -> Figure:
    figure, axes = new_panel("mean training loss over 10,000 images, nats", DEFAULT_COLORS, size=(5.2, 3.6))
    places = range(len(rows))
    for seed in rows[0].values:
        label = f"our {len(rows[0].values)} seeds" if seed == next(iter(rows[0].values)) else None
        axes.plot(places, [row.values[seed] for row in rows], color=DEFAULT_COLORS.first, linewidth=1, label=label)
    axes.plot(
        places,
        list(LOGGED.values()),
        color=DEFAULT_COLORS.second,
        marker="o",
        markersize=4,
        linewidth=0,
        label="2011 log",
    )
    axes.set_xticks(list(places)[::2], list(LOGGED)[::2])
    axes.set_xlabel("epoch.file")
    axes.legend(frameon=False, fontsize=9)
    return figure


STUDY = Study(
    name="cifar-19-trace",
    title="The first epochs of the 19 % net on CIFAR-10 against the author's log",
    section="the author's code",
    data="the original files of CIFAR-10 (cifar-10-batches-py)",
    cost="4 minutes a seed on one core",
    run=run,
    seeds=tuple(range(10)),
    sets=("data.shuffle", "train.epochs", "train.evaluate_every_epochs", "logging.log_every_steps"),
)

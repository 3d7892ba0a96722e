"""Whether bfloat16 trains as well as float32: the same recipe and seeds in both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import VIEWS, Workbench, error_percent, over_seeds

_PRECISIONS = ("float32", "bfloat16")


def run(bench: Workbench) -> Outcome:
    """Train with every seed in both precisions; compare the means with the scatter of the seeds."""
    recipe = _recipe_for(bench.data)
    runs = {
        precision: over_seeds(bench, precision, recipe, (f'runtime.precision="{precision}"',))
        for precision in _PRECISIONS
    }
    summary = runs["float32"][bench.seeds[0]].summary
    protocol = f"{recipe}: {summary['num_images']:,} images, {VIEWS[summary['views']]}, {summary['checkpoint']} weights"
    errors = {name: {seed: error_percent(run) for seed, run in of.items()} for name, of in runs.items()}
    losses = {name: {seed: run.summary["loss"] for seed, run in of.items()} for name, of in runs.items()}
    gap = {seed: errors["bfloat16"][seed] - errors["float32"][seed] for seed in bench.seeds}
    rows = [
        *(Row(f"error in {name}", "%", protocol, errors[name]) for name in _PRECISIONS),
        *(Row(f"loss in {name}", "nats", protocol, losses[name]) for name in _PRECISIONS),
        Row("bfloat16 minus float32", "points", protocol, gap),
    ]
    return Outcome(tuple(rows), notes=(_judge(gap),))


def _recipe_for(data: str) -> str:
    return "digits" if data == "digits" else "cifar-quick"


def _judge(gaps: Mapping[int, float]) -> str:
    """The mean of the differences seed by seed, with its interval: both forms have the same seeds and images."""
    mean, count = statistics.fmean(gaps.values()), len(gaps)
    if count < 2:
        return f"bfloat16 minus float32: {mean:+.2f} points with one seed; what is chance in it takes several to tell."
    half = student_t(count - 1) * statistics.stdev(gaps.values()) / math.sqrt(count)
    verdict = "no difference is shown" if abs(mean) <= half else "a difference"
    return (
        f"bfloat16 minus float32: {mean:+.2f} points, 95 % interval {mean - half:+.2f} to {mean + half:+.2f} "
        f"({count} seeds, Student's t): {verdict}."
    )


def student_t(freedom: int) -> float:
    """How many standard errors a mean's 95 % interval reaches to each side, by the degrees of freedom."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return table[min(freedom, len(table)) - 1]


STUDY = Study(
    name="precision",
    title="bfloat16 against float32: the same recipe and seeds in both",
    section="not in the paper",
    data="the original files of CIFAR-10, or digits (built in)",
    cost="6 trainings of digits (4 to 9 minutes each) or of cifar-quick (7 minutes each on one core)",
    run=run,
    seeds=(0, 1, 2),
    default_data="digits",
    sets=("runtime.precision",),
)

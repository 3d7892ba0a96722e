"""Whether bfloat16 trains as well as float32: the same recipe and seeds in both."""

from __future__ import annotations

import math
import statistics

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
    return Outcome(tuple(rows), notes=(_judge(errors, summary["num_images"]),))


def _recipe_for(data: str) -> str:
    return "digits" if data == "digits" else "cifar-quick"


def _judge(errors: dict[str, dict[int, float]], num_images: int) -> str:
    """The difference of the means beside its standard error, from the scatter of seeds or of images if that is more."""
    means = {name: statistics.fmean(values.values()) for name, values in errors.items()}
    difference = means["bfloat16"] - means["float32"]
    count = len(errors["float32"])
    share = statistics.fmean(means.values()) / 100
    # Each run's error is a share of so many images; seeds cannot scatter less than that.
    of_images = 100 * math.sqrt(share * (1 - share) / num_images)
    scatter = [statistics.stdev(values.values()) if count > 1 else 0.0 for values in errors.values()]
    of_runs = max(math.sqrt(statistics.fmean(value**2 for value in scatter)), of_images)
    standard_error = of_runs * math.sqrt(2 / count)
    verdict = "within" if abs(difference) <= 2 * standard_error else "more than"
    return (
        f"The means differ by {difference:+.2f} points, {verdict} two standard errors of such a difference "
        f"({2 * standard_error:.2f} points; {count} seed{'s' * (count > 1)})."
    )


STUDY = Study(
    name="precision",
    title="bfloat16 against float32: the same recipe and seeds in both",
    section="not in the paper",
    data="the original files of CIFAR-10, or digits (built in)",
    cost="6 trainings of digits (4 to 9 minutes each) or of cifar-quick (7 minutes each on one core)",
    run=run,
    seeds=(0, 1, 2),
    default_data="digits",
)

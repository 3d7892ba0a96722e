"""Whether bfloat16 trains as well as float32: the same recipe and seeds in both."""

from __future__ import annotations

from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import VIEWS, Workbench, error_percent, over_seeds

_PRECISIONS = ("float32", "bfloat16")


def run(bench: Workbench) -> Outcome:
    """Train with every seed in both precisions; the difference is taken seed by seed."""
    recipe = _recipe_for(bench.data)
    runs = {
        precision: over_seeds(bench, precision, recipe, (f'runtime.precision="{precision}"',))
        for precision in _PRECISIONS
    }
    summary = runs["float32"][bench.seeds[0]].summary
    num_images = summary["num_images"]
    protocol = f"{recipe}: {num_images:,} images, {VIEWS[summary['views']]}, {summary['checkpoint']} weights"
    errors = {name: {seed: error_percent(run) for seed, run in of.items()} for name, of in runs.items()}
    losses = {name: {seed: run.summary["loss"] for seed, run in of.items()} for name, of in runs.items()}
    gap = {seed: errors["bfloat16"][seed] - errors["float32"][seed] for seed in bench.seeds}
    rows = [
        *(Row(f"error in {name}", "%", protocol, errors[name], num_images=num_images) for name in _PRECISIONS),
        *(Row(f"loss in {name}", "nats", protocol, losses[name]) for name in _PRECISIONS),
        Row("bfloat16 minus float32", "points", f"{protocol}; same seed", gap, is_difference=True),
    ]
    return Outcome(tuple(rows))


def _recipe_for(data: str) -> str:
    return "digits" if data == "digits" else "cifar-quick"


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

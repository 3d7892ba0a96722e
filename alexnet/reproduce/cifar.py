"""The four nets for CIFAR-10 of 2011 and 2012 by their original schedules (paper 3.3; cuda-convnet, example-layers)."""

from __future__ import annotations

from functools import partial

from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import VIEWS, Workbench, error_percent, over_seeds

_DATA = "the original files of CIFAR-10 (cifar-10-batches-py)"


def _test_error(bench: Workbench, recipe: str, published: float, tolerance: float, layers: str) -> Outcome:
    runs = over_seeds(bench, recipe, recipe)
    first = next(iter(runs.values())).summary
    protocol = f"{first['num_images']:,} test images, {VIEWS[first['views']]}, {first['checkpoint']} weights"
    row = Row(
        "test error",
        "%",
        protocol,
        {seed: error_percent(run) for seed, run in runs.items()},
        published,
        f"cuda-convnet, example-layers/{layers}",
        tolerance,
    )
    loss = Row("test loss", "nats", protocol, {seed: run.summary["loss"] for seed, run in runs.items()})
    return Outcome((row, loss))


def _study(
    name: str, recipe: str, published: float, tolerance: float, layers: str, cost: str, seeds: tuple[int, ...]
) -> Study:
    return Study(
        name=name,
        title=f"{published:.0f} % error on CIFAR-10: the net {layers} by its original schedule",
        section="paper 3.3 names the last two" if recipe in ("cifar-13pct", "cifar-11pct") else "the author's code",
        data=_DATA,
        cost=cost,
        run=partial(_test_error, recipe=recipe, published=published, tolerance=tolerance, layers=layers),
        seeds=seeds,
    )


STUDIES = (
    _study("cifar-26", "cifar-quick", 26, 1.5, "layers-80sec", "7 minutes a seed on one CPU core", (0, 1, 2)),
    _study("cifar-18", "cifar-18pct", 18, 1.0, "layers-18pct", "80 minutes a seed on one busy core, bfloat16", (0,)),
    _study("cifar-13", "cifar-13pct", 13, 0.7, "layers-conv-local-13pct", "100 minutes on one core, bfloat16", (0,)),
    _study("cifar-11", "cifar-11pct", 11, 0.7, "layers-conv-local-11pct", "not measured", (0,)),
)  # fmt: skip

"""Five of the author's nets for CIFAR-10 (paper 3.3; cuda-convnet, example-layers), each by its recipe.

The 13 and 11 % nets have the author's whole schedule. For the 26, 19 and 18 % nets the length after the last drop is
our choice, and the 19 % net has the drops of the 18 % net (see the recipes' headers).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.training_error import stretch_before
from alexnet.reproduce.workbench import VIEWS, Workbench, error_percent, over_seeds

_DATA = "the original files of CIFAR-10 (cifar-10-batches-py)"
_NUM_TEST_IMAGES = 10_000
_SECTIONS = {
    "cifar-13pct": "paper 3.3, the net without normalisation",
    "cifar-11pct": "paper 3.3, the net with normalisation",
}


class Trace(NamedTuple):
    """What the author's log says of the training images at one place."""

    epoch: float
    """The place, in epochs of all 50,000 images."""
    loss: float
    """Nats."""
    error: float
    """Percent."""
    source: str


AFTER_100_EPOCHS = Trace(
    80.0, 0.409315, 14.235,
    "cuda-convnet wiki, the mean of the four files 100.2 to 101.1 of the 13 % net: 0.418657, 0.405222, 0.419132 and "
    "0.394249 nats; 14.58, 14.11, 14.54 and 13.71 %",
)  # fmt: skip
"""100 epochs of four of the five files are 80 of all."""


class _Published(NamedTuple):
    error: float
    """Percent."""
    tolerance: float
    layers: str
    """The file of the author's code."""
    loss: float | None = None
    """Nats; in the log of the 13 % net only."""
    trace: Trace | None = None
    """The same."""


def _test_error(bench: Workbench, recipe: str, published: _Published) -> Outcome:
    runs = over_seeds(bench, recipe, recipe)
    first = next(iter(runs.values())).summary
    # Other data sets have 10,000 test images too.
    is_cifar = next(iter(runs.values())).data["kind"] == "cifar10"
    of_data = "" if is_cifar else f" of {first['data']}"
    protocol = f"{first['num_images']:,} test images{of_data}, {VIEWS[first['views']]}, {first['checkpoint']} weights"
    is_comparable = bench.is_original and is_cifar and first["num_images"] == _NUM_TEST_IMAGES
    source = f"cuda-convnet, example-layers/{published.layers}"
    error = Row(
        "test error",
        "%",
        protocol,
        {seed: error_percent(run) for seed, run in runs.items()},
        published.error,
        source,
        published.tolerance if is_comparable else None,
        num_images=first["num_images"],
    )
    losses = {seed: run.summary["loss"] for seed, run in runs.items()}
    loss = Row("test loss", "nats", protocol, losses, published.loss, "" if published.loss is None else source)
    notes = () if is_cifar else (f"The published error is of CIFAR-10; ours is of {first['data']}, another data set.",)
    training = () if published.trace is None else training_rows(runs, published.trace)
    return Outcome((error, loss, *training), notes=notes)


def training_rows(runs: Mapping[int, RunRecord], trace: Trace) -> tuple[Row, ...]:
    """Our training loss and error at the place of the log; none where a training ended before.

    Args:
        runs: The trainings by seed, all of one recipe.
        trace: The place and the logged values.
    """
    stretches = {seed: stretch_before(run, trace.epoch) for seed, run in runs.items()}
    found = {seed: stretch for seed, stretch in stretches.items() if stretch is not None}
    if len(found) < len(runs):
        return ()
    stretch, run = next(iter(found.values())), next(iter(runs.values()))
    first_images = run.settings["data"].get("first_images")
    images = f"the first {first_images:,} training images" if first_images else "all training images"
    protocol = f"mean over steps {stretch.first_step:,} to {stretch.last_step:,}, {images}, while the network trains"
    of_place = f"at epoch {trace.epoch:g}"
    losses = {seed: stretch.loss for seed, stretch in found.items()}
    errors = {seed: 100 * stretch.error for seed, stretch in found.items()}
    return (
        Row(f"training loss {of_place}", "nats", protocol, losses, trace.loss, trace.source),
        Row(f"training error {of_place}", "%", protocol, errors, trace.error, trace.source),
    )


def _study(name: str, recipe: str, published: _Published, cost: str, seeds: tuple[int, ...]) -> Study:
    return Study(
        name=name,
        title=f"{published.error:.0f} % error on CIFAR-10: the net {published.layers} by the recipe {recipe}",
        section=_SECTIONS.get(recipe, "the author's code"),
        data=_DATA,
        cost=cost,
        run=partial(_test_error, recipe=recipe, published=published),
        seeds=seeds,
    )


STUDIES = (
    _study(
        "cifar-26", "cifar-quick", _Published(26, 1.5, "layers-80sec"), "7 minutes a seed on one CPU core", (0, 1, 2)
    ),
    _study(
        "cifar-19", "cifar-19pct", _Published(19, 1.0, "layers-19pct"),
        "80 minutes a seed on one busy core, bfloat16", (0, 1, 2),
    ),
    _study(
        "cifar-18", "cifar-18pct", _Published(18, 1.0, "layers-18pct"),
        "80 minutes a seed on one busy core, bfloat16", (0, 1, 2),
    ),
    _study(
        "cifar-13", "cifar-13pct", _Published(13, 0.7, "layers-conv-local-13pct", 0.4239, AFTER_100_EPOCHS),
        "100 minutes on one core, bfloat16", (0,),
    ),
    _study(
        "cifar-11", "cifar-11pct", _Published(11, 0.7, "layers-conv-local-11pct"),
        "6 hours, most of them on one core, bfloat16", (0,),
    ),
)  # fmt: skip

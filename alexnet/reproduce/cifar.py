"""Five of the author's nets for CIFAR-10 (paper 3.3; cuda-convnet, example-layers), each by its recipe.

The 13 and 11 % nets have the author's whole schedule. For the 26, 19 and 18 % nets the length after the last drop is
our choice, and the 19 % net has the drops of the 18 % net (see the recipes' headers).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import VIEWS, Workbench, error_percent, over_seeds

_DATA = "the original files of CIFAR-10 (cifar-10-batches-py)"
_NUM_TEST_IMAGES = 10_000
_SECTIONS = {
    "cifar-13pct": "paper 3.3, the net without normalisation",
    "cifar-11pct": "paper 3.3, the net with normalisation",
}


class _Published(NamedTuple):
    error: float
    """Percent."""
    tolerance: float
    layers: str
    """The file of the author's code."""
    loss: float | None = None
    """Nats; in the log of the 13 % net only."""


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
    )
    losses = {seed: run.summary["loss"] for seed, run in runs.items()}
    loss = Row("test loss", "nats", protocol, losses, published.loss, "" if published.loss is None else source)
    notes = () if is_cifar else (f"The published error is of CIFAR-10; ours is of {first['data']}, another data set.",)
    return Outcome((error, loss), notes=notes)


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
        "cifar-13", "cifar-13pct", _Published(13, 0.7, "layers-conv-local-13pct", loss=0.4239),
        "100 minutes on one core, bfloat16", (0,),
    ),
    _study(
        "cifar-11", "cifar-11pct", _Published(11, 0.7, "layers-conv-local-11pct"),
        "6 hours, most of them on one core, bfloat16", (0,),
    ),
)  # fmt: skip

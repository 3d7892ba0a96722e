"""Figure 1 (paper 3.1): a four-layer net with ReLU reaches 25 % training error six times faster than with tanh.

The paper does not name the net. Here it is the 19 % net of the author's code, which has four layers of weights. As in
the caption: no regularisation of any kind, and for each unit the learning rate that makes it learn fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from alexnet.config import Recipe
from alexnet.reporting.figures import DEFAULT_COLORS, new_panel
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.training_error import Curve, epochs_to, fastest, training_curve
from alexnet.reproduce.workbench import Workbench

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGET = 0.25
_UNITS = ("relu", "tanh", "silu")
_RATES = (0.0005, 0.001, 0.002, 0.004, 0.008)
_MAX_EPOCHS = {"full": 60, "small": 4}
# The recipe it starts from has no augmentation. Its last layer has a decay of its own.
_UNREGULARISED = ("optimizer.weight_decay=0.0", "optimizer.layers={}")


class _Unit(NamedTuple):
    name: str
    rate: float
    curves: dict[int, Curve]


def run(bench: Workbench) -> Outcome:
    """Sweep the rate of each unit with the first seed, then train the fastest with every seed."""
    units = [_fastest_rate(bench, unit) for unit in _UNITS]
    rows, times = [], {}
    for unit in units:
        reached = {seed: epochs_to(curve, TARGET) for seed, curve in unit.curves.items()}
        times[unit.name] = {seed: epochs for seed, epochs in reached.items() if epochs is not None}
        if times[unit.name]:
            rows.append(_epochs_row(unit, times[unit.name]))
    both = sorted(set(times["relu"]) & set(times["tanh"]))
    if both:
        ratios = {seed: times["tanh"][seed] / times["relu"][seed] for seed in both}
        rows.append(
            Row("tanh's epochs over ReLU's", "times", _PROTOCOL, ratios, 6.0, "paper, Figure 1: six times faster")
        )
    notes = [f"Fastest rates: {', '.join(f'{unit.name} {unit.rate:g}' for unit in units)}."]
    missing = [f"{unit.name} (seed {seed})" for unit in units for seed in unit.curves if seed not in times[unit.name]]
    if missing:
        limit = _MAX_EPOCHS[bench.scale]
        notes.append(f"Did not reach {TARGET:.0%} in {limit} epochs: {', '.join(missing)}.")
    return Outcome(tuple(rows), (bench.save_figure("figure-1", _draw(units)),), tuple(notes))


_PROTOCOL = "error of the training batches over one epoch, no augmentation, no weight decay, constant learning rate"


def _epochs_row(unit: _Unit, values: dict[int, float]) -> Row:
    # Read off the plot (paper.md 5.4): about 6 epochs for ReLU and 36 for tanh.
    published = {"relu": 6.0, "tanh": 36.0}.get(unit.name)
    source = "paper, Figure 1, read off the plot; the net is not named" if published else ""
    return Row(f"epochs to {TARGET:.0%} training error, {unit.name}", "epochs", _PROTOCOL, values, published, source)


def _fastest_rate(bench: Workbench, unit: str) -> _Unit:
    """Rates in ascending order; once a higher one is slower than the best so far, higher ones are not tried."""
    first = bench.seeds[0]
    reached: list[tuple[float, float | None]] = []
    for rate in _RATES:
        reached.append((rate, epochs_to(_train(bench, unit, rate, first), TARGET)))
        best = fastest(reached)[1]
        if best is not None and reached[-1][1] != best:
            break
    rate = fastest(reached)[0]
    return _Unit(unit, rate, {seed: _train(bench, unit, rate, seed) for seed in bench.seeds})


def recipe_of(bench: Workbench, unit: str, rate: float, seed: int) -> Recipe:
    """The training of one unit at one rate."""
    return bench.recipe(
        "cifar-19pct",
        *_UNREGULARISED,
        f'model.activation="{unit}"',
        f"optimizer.lr={rate}",
        'schedule.name="constant"',
        "schedule.milestones=[]",
        "schedule.factors=[]",
        f"train.epochs={_MAX_EPOCHS[bench.scale]}",
        f"train.stop_at_train_error={TARGET}",
        seed=seed,
    )


def _train(bench: Workbench, unit: str, rate: float, seed: int) -> Curve:
    return training_curve(bench.train(f"{unit}-lr-{rate:g}", recipe_of(bench, unit, rate, seed)))


def _draw(units: list[_Unit]) -> Figure:
    figure, axes = new_panel("training error on CIFAR-10", DEFAULT_COLORS, size=(5.2, 3.6))
    styles = {"relu": (DEFAULT_COLORS.first, "-"), "tanh": (DEFAULT_COLORS.second, "--"), "silu": ("#4b8b3b", ":")}
    for unit in units:
        color, line = styles[unit.name]
        for index, curve in enumerate(unit.curves.values()):
            label = f"{unit.name}, rate {unit.rate:g}" if index == 0 else None
            axes.plot(curve.epochs, curve.errors, color=color, linestyle=line, linewidth=1.6, label=label)
    axes.axhline(TARGET, color=DEFAULT_COLORS.faint, linewidth=1)
    axes.set_ylim(0.15, 0.75)  # as in the paper
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9)
    return figure


STUDY = Study(
    name="figure-1",
    title="Figure 1: epochs to 25 % training error on CIFAR-10, ReLU against tanh",
    section="paper 3.1, Figure 1",
    data="the original files of CIFAR-10 (cifar-10-batches-py)",
    cost="not measured",
    run=run,
    seeds=(0, 1, 2),
    small=f"at most {_MAX_EPOCHS['small']} epochs instead of {_MAX_EPOCHS['full']}",
)

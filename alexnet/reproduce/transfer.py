"""Few images of new classes: a network that was trained on other classes first, beside one from random weights.

The networks marked * in the paper's Table 2 were trained on another set first (paper 6). Here a net for CIFAR-10 is
trained on every other class of a data set; then each way of training gets N images of each of the remaining classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from alexnet.config import DataConfig, Recipe
from alexnet.data.decode import UnreadableImage
from alexnet.data.sources import open_source
from alexnet.data.splits import Split
from alexnet.errors import UserError
from alexnet.reporting.figures import DEFAULT_COLORS, new_panel
from alexnet.reporting.study_figures import LINES
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import Workbench, error_percent
from alexnet.runtime.files import write_text
from alexnet.training.checkpoint_files import checkpoint_file
from alexnet.training.initial_weights import recipe_with_init

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MODEL = "cifar-quick"
_IMAGES_PER_CLASS = {"full": (10, 50, 250), "small": (5,)}
_RATES = {"full": (3e-4, 1e-3, 3e-3), "small": (1e-3,)}
"""Of the training from scratch; the first seed chooses, by the error that is then reported."""
_FIRST_EPOCHS = {"full": (5, 1), "small": (1, 0.2)}
"""On the classes of before, at the first rate and at a tenth of it; the original has 8 and 2."""
# With everything else as in the recipes `transfer` and `folder`.
_COMMON = (
    "train.evaluate_every_epochs=1000",
    'evaluate.views="center"',
    'runtime.precision="float32"',
)
SCRATCH, TRANSFERRED, LAST_LAYER = "from scratch", "transferred", "last layer alone"

Errors = dict[int, float]
"""Seed -> percent."""


class _Sets(NamedTuple):
    """Two data sets as folders, and how many images they have."""

    before: Path
    """The classes that the first training is on."""
    few: Mapping[int, Path]
    """Images a class -> the other classes, with so many training images of each."""
    classes: tuple[Sequence[str], Sequence[str]]


def run(bench: Workbench) -> Outcome:
    """Train on the classes of before, then all three ways on few images of the others, with every seed."""
    sets = _write_sets(bench)
    first, second = _FIRST_EPOCHS[bench.scale]
    schedule = (f"train.epochs={first + second}", f"schedule.milestones=[{first}]", "data.image_size=32")
    before = {
        seed: bench.train("before", bench.recipe(_MODEL, *schedule, seed=seed), data=str(sets.before)).folder
        for seed in bench.seeds
    }
    errors: dict[int, dict[str, Errors]] = {}
    rates = {}
    for count, data in sets.few.items():
        rates[count], scratch = _from_scratch(bench, count, data)
        errors[count] = {
            SCRATCH: scratch,
            TRANSFERRED: _transferred(bench, f"transferred-{count}", data, before),
            LAST_LAYER: _transferred(bench, f"last-layer-{count}", data, before, "optimizer.copied_lr_factor=0"),
        }
    figure = bench.save_figure("transfer", _draw(errors))
    return Outcome(_rows(errors, sets, _num_val(sets)), (figure,), _notes(bench, sets, rates))


def _from_scratch(bench: Workbench, count: int, data: Path) -> tuple[float, Errors]:
    """The rate that is best for the first seed, and every seed's error with it."""

    def train(rate: float, seed: int) -> float:
        model = (f"model.name={_MODEL.replace('-', '_')}", "data.image_size=32", f"optimizer.lr={rate}")
        recipe = bench.recipe("folder", *_COMMON, *model, seed=seed)
        return error_percent(bench.train(f"scratch-{count}/lr-{rate:g}", recipe, data=str(data)))

    tried = {rate: train(rate, bench.seeds[0]) for rate in _RATES[bench.scale]}
    best = min(tried, key=tried.__getitem__)
    return best, {seed: train(best, seed) for seed in bench.seeds}


def _transferred(bench: Workbench, label: str, data: Path, before: Mapping[int, Path], *overrides: str) -> Errors:
    """Every seed's error, each beginning with the network of the same seed."""
    errors = {}
    for seed, folder in before.items():
        recipe = _with_init(bench, checkpoint_file(folder), [*_COMMON, *overrides, f"seed={seed}"])
        errors[seed] = error_percent(bench.train(label, recipe, data=str(data)))
    return errors


def _with_init(bench: Workbench, checkpoint: Path, overrides: Sequence[str]) -> Recipe:
    return recipe_with_init("transfer", [*overrides, *bench.overrides], str(checkpoint))[0]


# ---------------------------------------------------------------- the images


def _write_sets(bench: Workbench) -> _Sets:
    """Every other class of the data to one folder, few images of the others to one more for each number."""
    source = open_source(bench.data, DataConfig())
    if source.train is None or len(source.classes) < 4:
        raise UserError(f"{bench.data} has {len(source.classes)} classes; transfer needs at least two and two others.")
    classes = range(0, len(source.classes), 2), range(1, len(source.classes), 2)
    root = bench.folder / "images"
    counts = _IMAGES_PER_CLASS[bench.scale]
    fewest = int(np.bincount(source.train.labels, minlength=len(source.classes))[classes[1]].min())
    if fewest < max(counts):
        raise UserError(
            f"{bench.data} has a class of {fewest} training images; the study takes up to {max(counts)} of each class."
        )
    mark = f"{source.fingerprint} {' '.join(map(str, counts))}\n"
    if not (root / "source.txt").is_file():
        shutil.rmtree(root, ignore_errors=True)
        for split in (source.train, source.val):
            _write_split(bench, split, classes[0], source.classes, [(root / "before" / split.name, None)])
            few = [(root / f"few-{count}" / split.name, count if split is source.train else None) for count in counts]
            _write_split(bench, split, classes[1], source.classes, few)
        write_text(root / "source.txt", mark)
    if (root / "source.txt").read_text(encoding="utf-8") != mark:
        raise UserError(f"{root} holds the images of another data set or another scale; give a new --output.")
    names = tuple([source.class_names[label] for label in half] for half in classes)
    few_sets = {count: root / f"few-{count}" for count in counts}
    return _Sets(root / "before", few_sets, (names[0], names[1]))


def _write_split(
    bench: Workbench,
    split: Split,
    labels: Sequence[int],
    classes: Sequence[str],
    targets: list[tuple[Path, int | None]],
) -> None:
    """Write the images of some classes as PNG to folders, to each at most so many a class (None: all)."""
    chosen = np.flatnonzero(np.isin(split.labels, labels)).tolist()
    show = bench.display.counter(f"Writing {split.name} images", transient=True)
    written = dict.fromkeys(labels, 0)
    for done, index in enumerate(chosen, start=1):
        label = int(split.labels[index])
        wanted = [folder for folder, limit in targets if limit is None or written[label] < limit]
        written[label] += 1
        try:
            image = Image.fromarray(split.read(index)) if wanted else None
        except UnreadableImage as reason:
            name = f"{split.name} image {split.keys[index]} of {bench.data}"
            raise UserError(f"{name} cannot be read: {reason}") from None
        for folder in wanted:
            (folder / classes[label]).mkdir(parents=True, exist_ok=True)
            assert image is not None
            image.save(folder / classes[label] / f"{index:06}.png", compress_level=1)
        show(done, len(chosen))


def _num_val(sets: _Sets) -> int:
    return sum(1 for _ in (next(iter(sets.few.values())) / "val").glob("*/*.png"))


# ---------------------------------------------------------------- the result


def _rows(errors: Mapping[int, Mapping[str, Errors]], sets: _Sets, num_val: int) -> tuple[Row, ...]:
    rows = []
    for count, ways in errors.items():
        of_classes = f"{num_val:,} images of {len(sets.classes[1])} classes, centre crop, last weights"
        protocol = f"{of_classes}; {count} training images a class"
        rows += [
            Row(f"error, {count} images a class, {way}", "%", protocol, values, num_images=num_val)
            for way, values in ways.items()
        ]
        gain = {seed: ways[SCRATCH][seed] - ways[TRANSFERRED][seed] for seed in ways[SCRATCH]}
        what = f"what transfer takes off, {count} images a class"
        rows.append(Row(what, "points", f"{protocol}; by seed", gain, is_difference=True))
    return tuple(rows)


def _notes(bench: Workbench, sets: _Sets, rates: Mapping[int, float]) -> tuple[str, ...]:
    chosen = ", ".join(f"{rate:g} for {count} images a class" for count, rate in rates.items())
    tried = " and ".join(f"{rate:g}" for rate in _RATES[bench.scale])
    return (
        f"Trained first on {', '.join(sets.classes[0])}; then on {', '.join(sets.classes[1])}.",
        f"From scratch: the recipe folder with {_MODEL}, three times the epochs of transfer, and of the rates {tried} "
        f"the best by the error that is reported, seed {bench.seeds[0]}: {chosen}. Transferred: the recipe transfer as "
        "it is. "
        "Last layer alone: the same with optimizer.copied_lr_factor=0.",
    )


def _draw(errors: Mapping[int, Mapping[str, Errors]]) -> Figure:
    figure, axes = new_panel("error on new classes, %; a dot is one seed", DEFAULT_COLORS, size=(5.2, 3.6))
    counts = list(errors)
    for way, (color, stroke, marker) in zip((SCRATCH, TRANSFERRED, LAST_LAYER), LINES, strict=False):
        values = [np.array(list(errors[count][way].values())) for count in counts]
        axes.plot(counts, [value.mean() for value in values], color=color, linestyle=stroke, marker=marker, label=way)
        for count, of_seeds in zip(counts, values, strict=True):  # bars would look like intervals
            axes.plot([count] * len(of_seeds), of_seeds, color=color, linestyle="", marker=".", markersize=3)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("training images a class")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    return figure


STUDY = Study(
    name="transfer",
    title="Transfer: few images of new classes, with and without a network that was trained on others",
    section="paper 6 (the networks marked * in Table 2 were trained on another set first)",
    data="the original files of CIFAR-10 (cifar-10-batches-py), or another small set of four classes or more",
    cost="about 25 minutes on one CPU core, reckoned from the small form",
    run=run,
    seeds=(0, 1, 2),
    sets=(
        *("model", "optimizer.lr", "optimizer.copied_lr_factor", "evaluate.views", "runtime.precision"),
        *("data.image_size", "train.evaluate_every_epochs"),
    ),
    small="one epoch of the first training, five images a class, one rate",
)

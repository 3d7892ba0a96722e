"""What each choice of the paper gives: the network with and without it, trained by the same settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce.imagenet import (
    SMALL,
    TEST_2010,
    VAL_2012,
    HeldOutImages,
    comparison_notes,
    differences,
    is_comparable,
    protocol_of,
    recipe_for,
)
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import Workbench


@dataclass(frozen=True)
class Ablation:
    """One choice undone: a recipe that differs from its base in that alone, and in the rates its biases end at."""

    name: str
    title: str
    section: str
    recipe: str
    base: str = "as-run-2012"
    held_out: HeldOutImages = VAL_2012
    """What the published differences are of."""
    published: tuple[float | None, float | None] = (None, None)
    """Top-1 and top-5 error above the base's, in points."""
    source: str = ""
    notes: tuple[str, ...] = ()


_SCHEDULES = (
    "The 2012 runs were dropped by hand, each a little differently; here the weights of both have the base's schedule."
)
_PAPER_ONLY = (
    "The paper does not name the images (by its section 2 probably ILSVRC-2010); no such run is in the 2012 log."
)


def _log(config: str, section: str) -> str:
    return f"{section} and the 2012 log, config {config} against 145"


def _without(layer: str) -> Ablation:
    is_middle = layer != "conv5"
    return Ablation(
        f"no-{layer}",
        f"Without {layer}",
        "paper 7",
        f"as-run-2012-no-{layer}",
        published=(2.0, None) if is_middle else (None, None),
        source="paper 7: about 2, for any of the middle layers" if is_middle else "",
        notes=(_PAPER_ONLY,),
    )


ABLATIONS = (
    Ablation(
        "half-net", "Half the kernels, on one GPU", "paper 3.2", "as-run-2010-half", "as-run-2010", TEST_2010,
        (1.695, 1.230), _log("145-half", "paper 3.2 (1.7 / 1.2)"), (_SCHEDULES,),
    ),
    Ablation(
        "no-communication", "Two towers that meet in fc8 only", "the author's code",
        "as-run-2012-no-communication", published=(1.16, 1.12), source="the 2012 log, config 150 against 145",
        notes=(_SCHEDULES,),
    ),
    Ablation(
        "no-lrn", "Without response normalisation", "paper 3.3", "as-run-2012-no-lrn", published=(1.370, 1.152),
        source=_log("148", "paper 3.3 (1.4 / 1.2)"), notes=(_SCHEDULES,),
    ),
    Ablation(
        "non-overlapping-pools", "Pools that do not overlap", "paper 3.4", "as-run-2012-non-overlapping-pools",
        published=(0.394, 0.300), source=_log("147", "paper 3.4 (0.4 / 0.3)"),
        notes=(_SCHEDULES, "The published difference is no larger than the noise of a run: use several seeds."),
    ),
    Ablation(
        "no-colour-noise", "Without noise along the principal colours", "paper 4.1", "as-run-2012-no-colour-noise",
        published=(1.0, None), source="paper 4.1: more than 1", notes=(_PAPER_ONLY,),
    ),
    Ablation(
        "no-dropout", "Without dropout", "paper 4.2", "as-run-2012-no-dropout",
        notes=(_PAPER_ONLY, "The paper: substantial overfitting, and about half the iterations."),
    ),
    Ablation(
        "tanh", "tanh instead of ReLU", "paper 3.1", "as-run-2012-tanh",
        notes=(_PAPER_ONLY, "Both have the rate of the ReLU net; the study figure-1 chooses one for each."),
    ),
    *(_without(layer) for layer in ("conv2", "conv3", "conv4", "conv5")),
)  # fmt: skip


def _run(bench: Workbench, ablation: Ablation) -> Outcome:
    pairs = {seed: _train(bench, ablation, seed) for seed in bench.seeds}
    first, _ = next(iter(pairs.values()))
    protocol = protocol_of(first)
    rows = []
    for k, published in zip((1, 5), ablation.published, strict=True):
        errors = {seed: tuple(100 * run.summary[f"top{k}_error"] for run in pair) for seed, pair in pairs.items()}
        rows += [
            Row(
                f"top-{k} error, {name}", "%", protocol, {seed: pair[i] for seed, pair in errors.items()},
                num_images=first.summary["num_images"],
            )
            for i, name in enumerate((ablation.base, ablation.recipe))
        ]  # fmt: skip
        rows.append(
            Row(
                f"top-{k} error, difference",
                "points",
                f"{protocol}; the second minus the first, same seed and data",
                {seed: changed - base for seed, (base, changed) in errors.items()},
                published,
                ablation.source if published is not None else "",
                is_difference=True,
                is_comparable=is_comparable(bench, first, ablation.held_out),
            )
        )
    changed = "; ".join(differences(ablation.base, ablation.recipe, bench.scale))
    notes = (
        f"{ablation.recipe} differs from {ablation.base} in {changed}.",
        *ablation.notes,
        *comparison_notes(bench, first, ablation.held_out),
    )
    return Outcome(tuple(rows), notes=notes)


def _train(bench: Workbench, ablation: Ablation, seed: int) -> tuple[RunRecord, RunRecord]:
    """The network with the choice, and without it."""
    with_it = recipe_for(bench, ablation.base, seed)
    without_it = recipe_for(bench, ablation.recipe, seed, base=ablation.base)
    return bench.train(ablation.base, with_it), bench.train(ablation.recipe, without_it)


def _study(ablation: Ablation) -> Study:
    year = "2010, with its 150,000 test images as the validation split" if ablation.held_out is TEST_2010 else "2012"
    return Study(
        name=ablation.name,
        title=f"{ablation.title}: the difference in error",
        section=ablation.section,
        data=f"ILSVRC-{year}",
        cost="two trainings of some 90 epochs a seed; not measured",
        run=partial(_run, ablation=ablation),
        small=SMALL,
    )


STUDIES = tuple(_study(ablation) for ablation in ABLATIONS)

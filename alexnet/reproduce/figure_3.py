"""Figure 3: the kernels of the first convolution, and whether its two banks divide colour between them (paper 6.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alexnet.errors import UserError
from alexnet.evaluation.subjects import describe
from alexnet.reporting.study_figures import Bank, color_shares, kernel_banks
from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.trained import DATA, SMALL, networks
from alexnet.reproduce.workbench import Workbench
from alexnet.visualize.kernels import Kernels, color_share, first_kernels

NUM_SPLITS = 10_000
LEVEL = 0.05
"""A difference that fewer random splits than this reach counts as more than chance."""


LEAST_SMOOTHNESS = 0.2
"""Kernels below this are still the noise they began as (0); learnt ones are far above."""


class Banks(NamedTuple):
    """The kernels of one network in two banks of equal size, and how they differ in colour."""

    network: str
    """In words."""
    kernels: Kernels
    shares: np.ndarray
    """(O,) float64, see `color_share`."""
    chance: float
    """Share of random splits that differ at least as much."""

    @property
    def means(self) -> tuple[float, float]:
        """Mean colour share of the first and the second bank."""
        half = len(self.shares) // 2
        return float(self.shares[:half].mean()), float(self.shares[half:].mean())

    @property
    def difference(self) -> float:
        """Without a sign: which GPU gets the colours changes from run to run (paper 6.1)."""
        first, second = self.means
        return abs(first - second)


def smoothness(kernels: np.ndarray) -> float:
    """How alike neighbouring weights of kernels (O, 3, h, w) are: 0 for noise, towards 1 for large smooth shapes."""
    kernels = kernels.astype(np.float64)
    left, right, top, bottom = kernels[..., :-1], kernels[..., 1:], kernels[..., :-1, :], kernels[..., 1:, :]
    energy = (left**2).sum() + (right**2).sum() + (top**2).sum() + (bottom**2).sum()
    return float(2 * ((left * right).sum() + (top * bottom).sum()) / max(energy, np.finfo(np.float64).tiny))


def chance_of_split(shares: np.ndarray, seed: int = 0, num_splits: int = NUM_SPLITS) -> float:
    """The share of random splits into halves whose means differ at least as much as those of the halves given.

    The split that was found counts as one of them, so that it is never 0.
    """
    half = len(shares) // 2
    shuffled = np.random.default_rng(seed).permuted(np.tile(shares, (num_splits, 1)), axis=1)
    differences = np.abs(shuffled[:, :half].mean(axis=1) - shuffled[:, half:].mean(axis=1))
    found = abs(shares[:half].mean() - shares[half:].mean())
    # A hair less, since sums in another order round differently.
    return float((1 + (differences >= found - 1e-12).sum()) / (num_splits + 1))


def measure_banks(bench: Workbench, model: str) -> dict[int, Banks]:
    """Seed -> the banks of a network of that variant, trained or given."""
    measured = {}
    for seed, checkpoint in networks(bench, model):
        kernels = first_kernels(checkpoint)
        if kernels is None or len(kernels.weights) % 2:
            raise UserError(f"{describe(checkpoint)} has no conv1 of RGB kernels in two halves")
        shares = color_share(kernels.weights)
        measured[seed] = Banks(describe(checkpoint), kernels, shares, chance_of_split(shares))
    return measured


def _run(bench: Workbench) -> Outcome:
    if bench.data == "digits" and bench.checkpoint is None:
        raise UserError("figure-3 is about colour, and digits are grey; give colour images with --data")
    main = measure_banks(bench, "as_run")
    control = {} if bench.checkpoint is not None else measure_banks(bench, "one_tower")
    rows = [*_rows(main, ""), *(_rows(control, "one_tower (control): ") if control else ())]
    figures = [_draw(bench, "figure-3", next(iter(main.values())))]
    if control:
        figures.append(_draw(bench, "figure-3-control", next(iter(control.values()))))
    shown = {"as_run" if control else "given network": main, "one_tower (control)": control}
    curves = {name: _bank_shares(next(iter(banks.values()))) for name, banks in shown.items() if banks}
    figures.append(bench.save_figure("figure-3-colour", color_shares(curves)))
    notes = [
        "Colour share of a kernel: the part of its energy that is not the same in R, G and B; 0 is grey, independent "
        "noise has 2/3. The banks are the halves of conv1; which of them is the greyer one is free (paper 6.1)."
    ]
    notes += [_verdict(banks, seed) for group in (main, control) for seed, banks in group.items()]
    if not control:
        notes.append("The control, a network without groups, is trained only where no checkpoint is given.")
    return Outcome(tuple(rows), tuple(figures), tuple(notes))


def _rows(measured: dict[int, Banks], prefix: str) -> list[Row]:
    first = next(iter(measured.values()))
    half = len(first.shares) // 2
    protocol = f"conv1 of {first.network}, two banks of {half} kernels"
    splits = f"{protocol}; {NUM_SPLITS:,} random splits into {half} and {half}, seeded"
    return [
        Row(f"{prefix}colour share, greyer bank", "", protocol, {s: min(b.means) for s, b in measured.items()}),
        Row(f"{prefix}colour share, other bank", "", protocol, {s: max(b.means) for s, b in measured.items()}),
        Row(f"{prefix}difference of the banks", "", protocol, {s: b.difference for s, b in measured.items()}),
        Row(
            f"{prefix}likeness of neighbouring weights",
            "",
            f"{protocol}; 0 for the noise they began as",
            {s: smoothness(b.kernels.weights) for s, b in measured.items()},
        ),
        Row(f"{prefix}random splits as far apart", "%", splits, {s: 100 * b.chance for s, b in measured.items()}),
    ]


def _verdict(banks: Banks, seed: int) -> str:
    """What came out for one network, in a sentence that follows from the numbers alone."""
    first, second = banks.means
    parts = "banks" if banks.kernels.banks == 2 else "halves"
    found = (
        f"{banks.network}, seed {seed}: the {parts} have colour shares of {first:.3f} and {second:.3f}; "
        f"{100 * banks.chance:.2g} % of random splits are as far apart"
    )
    if smoothness(banks.kernels.weights) < LEAST_SMOOTHNESS:
        return f"{found}. The kernels are still the noise they began as: too short a training to say anything."
    if banks.kernels.banks != 2:
        return f"{found}. Without groups nothing ties a half together: this is how far apart chance puts them."
    if banks.chance >= LEVEL:
        return f"{found}: no more than chance, so no division of colour between them is seen."
    return f"{found}: more than chance, so they seem to divide colour between them; other seeds would confirm it."


def _bank_shares(banks: Banks) -> list[tuple[str, np.ndarray]]:
    half = len(banks.shares) // 2
    return [(f"kernels 1-{half}", banks.shares[:half]), (f"kernels {half + 1}-{2 * half}", banks.shares[half:])]


def _draw(bench: Workbench, name: str, banks: Banks) -> str:
    half = len(banks.shares) // 2
    kernels = banks.kernels.weights
    height, width = kernels.shape[2:]
    title = f"The {2 * half} kernels of conv1, {height} x {width} x 3: {banks.network}"
    drawn = [
        Bank(f"kernels 1-{half}, mean colour share {banks.means[0]:.2f}", kernels[:half]),
        Bank(f"kernels {half + 1}-{2 * half}, mean colour share {banks.means[1]:.2f}", kernels[half:]),
    ]
    return bench.save_figure(name, kernel_banks(title, drawn))


STUDY = Study(
    name="figure-3",
    title="The kernels of conv1 in two banks, and which of them sees colour",
    section="paper, Figure 3 and 6.1; as the control the same net without groups (one_tower)",
    data=DATA,
    cost="two trainings a seed, of which none was measured on ImageNet; --checkpoint spares both, and the control",
    run=_run,
    takes_checkpoint=True,
    small=SMALL,
)

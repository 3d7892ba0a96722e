"""From the things a person names to findings: which is what, and what is compared with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.config import DataConfig, Recipe
from alexnet.config_io import TRANSFER_RECIPE, load_recipe, recipe_names
from alexnet.data.sources import BUILT_IN, KINDS, is_address
from alexnet.doctor.activations import inspect_start
from alexnet.doctor.checkpoint import data_config, inspect_checkpoint, inspect_checkpoint_fit
from alexnet.doctor.data import DataFacts, inspect_data
from alexnet.doctor.findings import SEVERITIES, Finding, finding
from alexnet.doctor.initial import inspect_init, inspect_init_fit
from alexnet.doctor.machine import inspect_machine
from alexnet.doctor.recipe import inspect_fit, inspect_recipe
from alexnet.doctor.replayed import inspect_replay
from alexnet.doctor.run import inspect_run, is_run
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress
from alexnet.runtime.files import expanded_path
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.checkpoint_files import is_on_the_hub
from alexnet.training.initial_weights import recipe_with_init

_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl")


@dataclass
class Things:
    """What the person named, by kind."""

    data: list[str] = field(default_factory=list)
    recipe: str | None = None
    overrides: list[str] = field(default_factory=list)
    init: str | None = None
    """A trained network that the recipe begins with."""
    checkpoints: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)


def sort_things(arguments: Sequence[str], data: Sequence[str] = (), init: str | None = None) -> Things:
    """Tell data, recipe, checkpoints and runs apart by name and by what is there. Raises UserError.

    init: a checkpoint that the recipe begins with; the recipe is `transfer` where none is named. A name that is a
    recipe's and a data set's (digits) is both, unless one of the two is named otherwise; beside a checkpoint or a run
    it is the data.
    """
    things = Things(data=list(data), init=init)
    for name in data:
        if not _is_data(name):
            raise _nothing(name)
    both = []
    for argument in arguments:
        path = expanded_path(argument)
        if argument in BUILT_IN and argument in recipe_names() and not path.exists():
            both.append(argument)
        elif "=" in argument and not _is_data(argument):
            things.overrides.append(argument)
        elif is_run(path):
            things.runs.append(path)
        elif is_on_the_hub(argument) or (path / "model.safetensors").is_file():
            things.checkpoints.append(Path(argument))
        elif (argument in recipe_names() and not path.is_dir()) or (path.suffix == ".toml" and path.is_file()):
            _add_recipe(things, argument)
        elif path.is_file() and _is_named_like_checkpoint(path):
            things.checkpoints.append(path)
        elif _is_data(argument):
            things.data.append(argument)
        else:
            raise _nothing(argument)
    for name in both:
        if things.recipe is None and not (things.checkpoints or things.runs):
            things.recipe = name
            if things.data:
                continue
        things.data.append(name)
    if init is not None and things.recipe is None:
        things.recipe = TRANSFER_RECIPE
    if things.overrides and things.recipe is None:
        raise UserError(f"{things.overrides[0]} changes a recipe, and none is named.")
    return things


def _is_data(spec: str) -> bool:
    """Whether a name is that of something that may be a data set."""
    kind, _, rest = spec.partition(":")
    is_there = expanded_path(spec).exists() or (kind in KINDS and bool(rest) and expanded_path(rest).exists())
    return is_there or kind in BUILT_IN or is_address(spec)


def _is_named_like_checkpoint(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".tar"]:  # model_best.pth.tar is one, images.tar is not
        suffixes = suffixes[:-1] or [".tar"]
    return not suffixes or suffixes[-1] in _CHECKPOINT_SUFFIXES


def _nothing(name: str) -> UserError:
    return UserError(
        f"{name} is no path and no name that is known here. Give a data set (a path, an address, "
        f"{' or '.join(BUILT_IN)}), a recipe ({', '.join(recipe_names())}, or a .toml file), a checkpoint or a run's "
        "folder."
    )


def _add_recipe(things: Things, name: str) -> None:
    if things.recipe is not None:
        raise UserError(f"one recipe is expected, two were given: {things.recipe}, {name}.")
    things.recipe = name


def examine(things: Things, *, full: bool = False, display: Progress | None = None) -> list[Finding]:
    """All findings, the worst first within each thing; about the machine where nothing is named.

    display: repeat the steps of runs that have diverged, and show there how far that is.
    """
    if display is not None and not things.runs:
        raise UserError("--replay repeats the steps of a run that has diverged; name the run's folder.")
    if not (things.data or things.recipe or things.checkpoints or things.runs):
        return inspect_machine()
    findings: list[Finding] = []
    recipe = None
    if things.recipe is not None:
        try:
            recipe = _load(things.recipe, things.overrides, things.init)
        except UserError as error:
            findings.append(finding("recipe-refused", things.recipe, str(error)))
    checkpoints: list[tuple[str, Checkpoint]] = []
    for path in things.runs:
        run_recipe, found = inspect_run(path)
        findings += found
        if display is not None:
            findings += inspect_replay(path, display)
        checkpoint = _examine_checkpoint(path, findings) if (path / "checkpoints").is_dir() else None
        if checkpoint is not None:
            checkpoints.append((str(path), checkpoint))
        if run_recipe is not None:
            num_classes = None if checkpoint is None else checkpoint.num_classes
            to_run_here = not (path / "summary.json").is_file()
            findings += inspect_recipe(str(path), run_recipe, num_classes, to_run_here=to_run_here)[1]
    for path in things.checkpoints:
        checkpoint = _examine_checkpoint(path, findings)
        if checkpoint is not None:
            checkpoints.append((str(path), checkpoint))
    config = recipe.data if recipe else data_config(checkpoints[0][1]) if checkpoints else DataConfig()
    all_facts = []
    for spec in things.data:
        facts, found = inspect_data(spec, config, full=full)
        findings += found
        all_facts.append(facts)
    if recipe is not None and things.recipe is not None:
        findings += _examine_recipe(things.recipe, recipe, all_facts)
    for name, checkpoint in checkpoints:
        for facts in all_facts:
            findings += inspect_checkpoint_fit(name, checkpoint, facts)
    order = list(dict.fromkeys(item.about for item in findings))
    return sorted(findings, key=lambda item: (order.index(item.about), SEVERITIES.index(item.severity)))


def _load(name: str, overrides: Sequence[str], init: str | None) -> Recipe:
    return load_recipe(name, overrides) if init is None else recipe_with_init(name, overrides, init)[0]


def _examine_checkpoint(path: Path, findings: list[Finding]) -> Checkpoint | None:
    checkpoint, found = inspect_checkpoint(path)
    findings += found
    return checkpoint


def _examine_recipe(name: str, recipe: Recipe, all_facts: list[DataFacts]) -> list[Finding]:
    classes = all_facts[0].classes if all_facts else ()
    model, findings = inspect_recipe(name, recipe, len(classes) or None)
    preprocessing = None
    if model is not None and recipe.model.init is not None:
        preprocessing, found = inspect_init(name, recipe, model, classes)
        findings += found
    for facts in all_facts:
        findings += inspect_fit(name, recipe, facts)
        if preprocessing is not None:
            findings += inspect_init_fit(recipe, preprocessing, facts)
        if model is not None and not any(item.severity == "problem" for item in findings):
            findings += inspect_start(name, recipe, model, facts, preprocessing)
    return findings

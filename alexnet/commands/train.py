"""`alexnet train`: what it reads from its arguments; the training itself is in training/run.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from alexnet.commands.output import print_json
from alexnet.config_io import DEFAULT_RECIPE, FOLDER_RECIPE, TRANSFER_RECIPE, load_recipe
from alexnet.errors import UserError


def train_command(
    arguments: Sequence[str],
    data: str | None,
    output: Path | None,
    *,
    init: str | None,
    freeze: str | None,
    on_stuck: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Train, or go on; print the summary as JSON where that is asked for. Returns the exit code."""
    name, overrides = split_arguments(arguments)
    if name is None:
        name = default_recipe(data, init)
    overrides += _frozen(freeze)
    if on_stuck is not None:
        overrides.append(f"train.on_stuck={on_stuck}")
    load_recipe(name, overrides)  # what is wrong with it is told before torch is imported
    data = choose_data(name, data)
    output = output or choose_output(name, data)
    from alexnet.training import run
    from alexnet.training.stop_signals import exit_code

    summary = run.train(name, data, output, overrides=overrides, init=init, progress="silent" if quiet else "auto")
    if as_json:
        print_json({"output": str(summary.output), "finished": summary.finished, **summary.values})
    return 0 if summary.finished else exit_code(summary.stopped_by)


def default_recipe(data: str | None, init: str | None) -> str:
    """The recipe where none is named: that of a network to begin with, of the built-in digits, or of a folder."""
    if init is not None:
        return TRANSFER_RECIPE
    return DEFAULT_RECIPE if data in (None, "digits") else FOLDER_RECIPE


def _frozen(names: str | None) -> list[str]:
    """The overrides that freeze the layers of a list with commas."""
    if names is None:
        return []
    layers = [name.strip() for name in names.split(",")]
    for layer in layers:
        if not re.fullmatch(r"\w+", layer):
            raise UserError(f"--freeze takes names of layers with commas between, as in conv1,conv2; not {names!r}")
    return [f"optimizer.layers.{layer}.lr_factor=0.0" for layer in layers]


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Tell the recipe from the overrides: an argument with "=" is an override, wherever it stands.

    (An existing file whose path has a "=" in it is a recipe all the same.) None: no recipe was named.
    """
    overrides = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    names = [argument for argument in arguments if argument not in overrides]
    if len(names) > 1:
        raise UserError(
            f"one recipe is expected, {len(names)} were given: {', '.join(names)}; "
            "data is given with --data, and a value to change as section.key=value"
        )
    return (names[0] if names else None), overrides


def choose_data(recipe: str, data: str | None) -> str:
    """The data to train on: what was asked for, or the built-in digits for their own recipe."""
    if data is not None:
        return data
    if recipe == DEFAULT_RECIPE:
        return "digits"
    raise UserError(
        f"recipe {recipe} needs --data: a folder with one folder of images a class, for example --data photos, "
        "or a built-in data set (digits, shapes)"
    )


def choose_output(recipe: str, data: str) -> Path:
    """The run's folder where none was given: runs/RECIPE-DATA, or runs/NAME where both have one name."""
    recipe_name = _word(Path(recipe).name.removesuffix(".toml"))
    data_name = _word(Path(data.rpartition(":")[2] if not Path(data).exists() else data).resolve().name)
    if data.startswith(("digits", "shapes")) and not Path(data).exists():
        data_name = _word(data)
    return Path("runs") / (recipe_name if recipe_name == data_name else f"{recipe_name}-{data_name}")


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "data"

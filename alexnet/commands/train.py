"""What `alexnet train` reads from its arguments; the training itself is in training/run.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from alexnet.config_io import DEFAULT_RECIPE
from alexnet.errors import UserError


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


def choose_data(recipe: str | None, data: str | None) -> str:
    """The data to train on: what was asked for, or the built-in digits for their own recipe."""
    if data is not None:
        return data
    if recipe in (None, DEFAULT_RECIPE):
        return "digits"
    raise UserError(
        f"recipe {recipe} needs --data: a folder with one folder of images a class, for example --data photos, "
        "or a built-in data set (digits, shapes)"
    )


def choose_output(recipe: str | None, data: str) -> Path:
    """The run's folder where none was given: runs/RECIPE-DATA, or runs/NAME where both have one name."""
    recipe_name = _word(Path(recipe or DEFAULT_RECIPE).name.removesuffix(".toml"))
    data_name = _word(Path(data.rpartition(":")[2] if not Path(data).exists() else data).resolve().name)
    if data.startswith(("digits", "shapes")) and not Path(data).exists():
        data_name = _word(data)
    return Path("runs") / (recipe_name if recipe_name == data_name else f"{recipe_name}-{data_name}")


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "data"

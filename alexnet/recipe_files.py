"""Where recipes are: those of the package by name, others by path; and the recipe that one is based on."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.errors import UserError


class RecipeFile(NamedTuple):
    """The text of a recipe, unread."""

    text: str
    source: str
    """How to call it in messages."""
    folder: Path
    """What the path of its base is relative to."""


def recipe_names() -> list[str]:
    """The names of the recipes that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _recipe_folder().iterdir() if _is_recipe(entry.name))


def read_recipe(name_or_path: str | Path) -> RecipeFile:
    """The file of a recipe, by name, by path, or of a run's folder. Raises UserError where there is none."""
    name = str(name_or_path)
    path = Path(os.path.expanduser(name))
    looks_like_path = isinstance(name_or_path, Path) or _looks_like_path(name)
    if not looks_like_path and name in recipe_names():
        return RecipeFile((_recipe_folder() / f"{name}.toml").read_text(encoding="utf-8"), f"recipe {name}", Path())
    if path.is_dir() and not (path / "config.toml").is_file():
        raise UserError(f"{name} is a folder, not a recipe; its images are trained on with folder --data {name}")
    if not looks_like_path and not path.is_dir():
        raise UserError(f"no recipe is named {name!r}{did_you_mean(name, recipe_names())}; {_known_recipes()}")
    if path.is_dir():
        path = path / "config.toml"
    try:
        return RecipeFile(path.read_text(encoding="utf-8"), str(path), path.parent)
    except FileNotFoundError:
        raise UserError(f"recipe file {path} does not exist; {_known_recipes()}") from None
    except UnicodeDecodeError:
        raise UserError(f"recipe file {path} is not text (a recipe is a TOML file in UTF-8)") from None
    except OSError as error:
        raise UserError(f"recipe file {path} cannot be read: {error.strerror}") from None


def read_values(file: RecipeFile) -> dict[str, Any]:
    """What a recipe says, as nested dicts, laid over what its base says. Raises UserError for what is not TOML."""
    return _read_values(file, ())


def _read_values(file: RecipeFile, derived: Sequence[str]) -> dict[str, Any]:
    """derived: the recipes that led here by their base, each as `source`."""
    try:
        values = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file.source} is not valid TOML: {_toml_reason(error)}") from None
    if "base" not in values:
        return values
    base = values.pop("base")
    if not isinstance(base, str):
        raise UserError(f"base ({file.source}) must be a recipe's name or the path of a .toml file, in quotes")
    # Resolved, so that a circle through several folders comes back to the same name.
    path = (file.folder / Path(os.path.expanduser(base))).resolve()
    try:
        base_file = read_recipe(path if _looks_like_path(base) else base)
    except UserError as error:
        raise UserError(f"base ({file.source}): {error}") from None
    chain = [*derived, file.source]
    if base_file.source in chain:
        circle = " -> ".join([*chain, base_file.source])
        raise UserError(f"base ({file.source}): {circle} is a circle; take one of the base keys out")
    return merge(_read_values(base_file, chain), values)


def merge(values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` over `values`, in place: tables are merged, anything else is replaced. Returns `values`.

    An empty table replaces, too: there is nothing in it to merge, so it is there to take away (optimizer.layers={}).
    """
    for key, value in over.items():
        if isinstance(value, Mapping) and value and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value
    return values


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """The nearest choice as a question, or nothing."""
    close = difflib.get_close_matches(word.lower().replace("_", "-"), choices, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith(".toml")


def _recipe_folder() -> Any:
    return resources.files("alexnet") / "recipes"


def _is_recipe(file_name: str) -> bool:
    return file_name.endswith(".toml") and not file_name.startswith(".")


def _known_recipes() -> str:
    return f"the recipes are {', '.join(recipe_names())}, or the path of a .toml file"


def _toml_reason(error: tomllib.TOMLDecodeError) -> str:
    """tomllib says "what (at line 3, column 5)"; put the place first, as compilers do."""
    match = re.fullmatch(r"(.*) \(at (.*)\)", str(error), re.DOTALL)
    return f"{match[2]}: {match[1]}" if match else str(error)

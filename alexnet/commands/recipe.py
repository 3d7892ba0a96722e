"""`alexnet recipe`: list, show, diff, validate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alexnet.commands.output import print_json
from alexnet.commands.train import split_arguments
from alexnet.config import Recipe
from alexnet.config_io import diff_recipes, load_recipe, recipe_header, recipe_names, to_toml
from alexnet.errors import UserError
from alexnet.runtime.text import print_lines


def list_command(*, as_json: bool) -> None:
    """Print the name and the first line of the header of every recipe."""
    titles = {name: recipe_header(name).partition("\n")[0].partition(": ")[2] for name in recipe_names()}
    if as_json:
        print_json({"recipes": [{"name": name, "title": title} for name, title in titles.items()]})
        return
    width = max(map(len, titles))
    for name, title in titles.items():
        print_lines(f"{name:{width}}  {title}")


def show_command(arguments: Sequence[str], *, as_json: bool) -> None:
    """Print the header and all values; the output is itself a recipe."""
    name, recipe = _load(arguments)
    if as_json:
        print_json({"name": name, "header": recipe_header(name), "values": _values(recipe)})
        return
    header = "".join(f"# {line}".rstrip() + "\n" for line in recipe_header(name).splitlines())
    print_lines(*(header.split("\n") if header else ()), *to_toml(recipe).rstrip("\n").split("\n"))


def diff_command(first: str, second: str, *, as_json: bool) -> None:
    """Print the dotted keys whose values differ."""
    differences = diff_recipes(load_recipe(first), load_recipe(second))
    if as_json:
        rows = [{"key": key, "a": a, "b": b} for key, a, b in differences]
        print_json({"a": first, "b": second, "differences": rows})
    elif not differences:
        print_lines(f"{first}, {second}: no difference.")
    else:
        from alexnet.reporting.console import print_table

        print_table(["key", first, second], [[key, _shown(a), _shown(b)] for key, a, b in differences])


def validate_command(arguments: Sequence[str], *, as_json: bool) -> None:
    """Say that a recipe is valid; UserError says why it is not."""
    name, recipe = _load(arguments)
    if as_json:
        print_json({"name": name, "valid": True, "values": _values(recipe)})
    else:
        print_lines(f"{name}: valid")


def _load(arguments: Sequence[str]) -> tuple[str, Recipe]:
    name, overrides = split_arguments(arguments)
    if name is None:
        raise UserError(f"name a recipe, beside the overrides: one of {', '.join(recipe_names())}, or a .toml file")
    return name, load_recipe(name, overrides)


def _values(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude_none=True)


def _shown(value: Any) -> str | None:
    if isinstance(value, tuple):
        return "[" + ", ".join(item if isinstance(item, str) else f"{item:g}" for item in value) + "]"
    return None if value is None else str(value)

"""Recipes in and out: TOML files and `section.key=value` overrides to a checked `Recipe`, and back to TOML.

Command line beats file beats defaults. Every problem is named by its dotted key, with what was given and what is
allowed, and all problems of a recipe are told at once. This module does not import torch.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from alexnet.config import Recipe
from alexnet.errors import UserError
from alexnet.recipe_files import RecipeFile, did_you_mean, merge, read_recipe, read_values
from alexnet.recipe_files import recipe_names as recipe_names

DEFAULT_RECIPE = "digits"
FOLDER_RECIPE = "folder"
TRANSFER_RECIPE = "transfer"
"""Where none is named and there is a trained network to begin with."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DOTTED_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


# ---------------------------------------------------------------- reading


def load_recipe(name_or_path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name, from a TOML file or from a run's folder, and apply `section.key=value` overrides.

    None is the recipe "digits". A file may begin with `base = "as-run-2012"` (or a path, from its own folder): it then
    states only in what it differs from that recipe. Raises UserError for an unknown name, a file that is not TOML, and
    for every unknown key or value that is not allowed, all of them in one message.
    """
    return _from_file(read_recipe(DEFAULT_RECIPE if name_or_path is None else name_or_path), overrides)


def from_toml_text(text: str, overrides: Sequence[str] = (), source: str = "recipe") -> Recipe:
    """Parse and check a recipe given as TOML text; `source` names it in messages. Raises UserError."""
    return _from_file(RecipeFile(text, source, Path()), overrides)


def _from_file(file: RecipeFile, overrides: Sequence[str]) -> Recipe:
    values, source = read_values(file), file.source
    problems: list[str] = []
    overridden: list[tuple[str, ...]] = []
    for override in overrides:
        try:
            path, value = parse_override(override)
            _set(values, path, value)
            overridden.append(path)
        except UserError as error:
            problems.append(str(error))
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += [_describe(dict(detail), overridden, source) for detail in error.errors()]
    else:
        if not problems:
            return recipe
    if len(problems) == 1:
        raise UserError(problems[0])
    raise UserError("\n  ".join([f"{len(problems)} problems in the recipe:", *problems]))


def recipe_header(name_or_path: str | Path) -> str:
    """The comment at the top of a recipe: what it reproduces, source, expected result, cost, command."""
    lines = []
    for line in read_recipe(name_or_path).text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" ").rstrip())
    return "\n".join(lines)


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Split `optimizer.lr=0.02` into (("optimizer", "lr"), 0.02).

    The value is TOML; a bare word that is not TOML is a string, and `none` is None (takes the default of an optional
    key back). Raises UserError for what is neither.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _DOTTED_KEY.fullmatch(key):
        raise UserError(f"override {text!r}: expected section.key=value, for example optimizer.lr=0.02")
    if not value:
        raise UserError(f'override {text!r}: no value after "="; an empty text is written {key}=\'""\'')
    if value == "none":
        return tuple(key.split(".")), None
    try:
        table = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError as error:
        if value[0] in "[{\"'" or "\n" in value:
            reason = str(error).split(" (at ")[0]
            raise UserError(f"override {text!r}: the value is not valid TOML: {reason}") from None
        table = {"value": value}
    if set(table) != {"value"}:
        raise UserError(f"override {text!r}: expected one value")
    return tuple(key.split(".")), table["value"]


def _set(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Write one override into the parsed file; a table is merged into a table, anything else replaces."""
    table = values
    for depth, key in enumerate(path[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            dotted = ".".join(path[:depth])
            raise UserError(f"{'.'.join(path)} (command line): {dotted} is a single value and has no keys")
    merge(table, {path[-1]: value})


# ---------------------------------------------------------------- messages

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": 'a list such as [25, 51] or ["norm1", "norm2"]',
    "dict_type": "a table of layer names",
    "model_type": "a table of keys",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _describe(detail: Mapping[str, Any], overridden: Sequence[tuple[str, ...]], source: str) -> str:
    """One pydantic error as one sentence: key (where it was given): what is wrong, what is allowed."""
    location = tuple(detail["loc"])
    names = tuple(str(part) for part in location if not isinstance(part, int))
    on_command_line = any(names[: len(path)] == path or path[: len(names)] == names for path in overridden)
    where = "command line" if on_command_line else source
    given, kind = detail["input"], detail["type"]
    if kind == "extra_forbidden":
        return f"{_unknown_key(names)} ({where})"
    prefix = f"{_dotted(location)} ({where})"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        hint = did_you_mean(given, allowed) if isinstance(given, str) else ""
        return f"{prefix} = {_toml_like(given)} is not one of {', '.join(allowed)}{hint}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{prefix} = {_toml_like(given)} must be {words} {_number(detail['ctx'][key])}"
    if kind == "value_error":
        return f"{prefix}: {detail['msg'].removeprefix('Value error, ')}"
    wanted = _TYPES.get(kind, detail["msg"])
    return f"{prefix} = {_toml_like(given)} must be {wanted}{_type_hint(kind, given)}"


def _type_hint(kind: str, given: Any) -> str:
    if isinstance(given, bool):
        return ", not a truth value"
    if kind in ("int_type", "float_type") and isinstance(given, str):
        if re.fullmatch(r"[+-]?\.\d+(e[+-]?\d+)?|[+-]?\d+\.", given):
            return f": TOML wants digits on both sides of the point, as in {float(given)!r}"
        return ", not text"
    if kind == "bool_type" and isinstance(given, str) and given.lower() in ("true", "false"):
        return f": write {given.lower()}, without capitals or quotes"
    if kind == "string_type" and not isinstance(given, (dict, list)) and given is not None:
        return f": put it in quotes, as in '\"{given}\"'"
    return ""


def _unknown_key(names: tuple[str, ...]) -> str:
    """Say what an unknown key was probably meant to be: a sibling, or the same name in another section."""
    *parents, key = names
    section = _section_at(parents)
    siblings = list(section.model_fields) if section is not None else []
    dotted = ".".join(names)
    close = difflib.get_close_matches(key, siblings, n=1)
    if close:
        return f"unknown key {dotted!r}; did you mean {'.'.join([*parents, close[0]])!r}?"
    elsewhere = [known for known in known_keys() if known.rpartition(".")[2] == key]
    if elsewhere:
        return f"unknown key {dotted!r}; did you mean {elsewhere[0]!r}?"
    what = f"{'.'.join(parents)} has the keys" if parents else "the sections are"
    return f"unknown key {dotted!r}; {what} {', '.join(siblings)}"


def known_keys() -> list[str]:
    """Every dotted key that a recipe may set; a layer's name is written as NAME."""

    def walk(section: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            inner, by_layer = _inner_section(field.annotation)
            if inner is None:
                yield f"{prefix}{name}"
            else:
                yield from walk(inner, f"{prefix}{name}.NAME." if by_layer else f"{prefix}{name}.")

    return list(walk(Recipe, ""))


def _section_at(path: Sequence[str]) -> type[BaseModel] | None:
    section: type[BaseModel] = Recipe
    names = iter(path)
    for name in names:
        if name not in section.model_fields:
            return None
        inner, by_layer = _inner_section(section.model_fields[name].annotation)
        if inner is None:
            return None
        if by_layer:
            next(names, None)
        section = inner
    return section


def _inner_section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section class behind a field's annotation (None for a plain value), and whether it is one per layer."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    by_layer = get_origin(annotation) is dict
    for argument in get_args(annotation):
        inner, _ = _inner_section(argument)
        if inner is not None:
            return inner, by_layer
    return None, False


def _dotted(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "recipe"


def _toml_like(value: Any) -> str:
    try:
        text = "none" if value is None else format_value(value)
    except TypeError:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(value: float) -> str:
    return f"{value:g}"


# ---------------------------------------------------------------- writing and comparing


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every value written out, in a fixed order; a key that is None is left out.

    `from_toml_text(to_toml(recipe)) == recipe`, and equal recipes give equal text.
    """
    lines: list[str] = []
    _write_table(lines, recipe.model_dump(), ())
    return "\n".join(lines).strip() + "\n"


def diff_recipes(a: Recipe, b: Recipe) -> list[tuple[str, Any, Any]]:
    """What differs: (dotted key, value in a, value in b), in recipe order; None stands for a key that is not set.

    Of a section that only one of them has (schedule.bias, a layer) its name and what is not a default count.
    """
    flat_a, flat_b = dict(_flatten(a.model_dump())), dict(_flatten(b.model_dump()))
    differences = []
    for key in dict.fromkeys([*flat_a, *flat_b]):
        value_a, value_b = flat_a.get(key), flat_b.get(key)
        in_both = key in flat_a and key in flat_b
        if value_a != value_b and (in_both or not _is_default(key, value_b if value_a is None else value_a)):
            differences.append((key, value_a, value_b))
    return differences


def _is_default(key: str, value: Any) -> bool:
    *parents, name = key.split(".")
    section = _section_at(parents)
    # A schedule's name counts even so: `constant` for the biases is not the same as no schedule of their own.
    return name != "name" and section is not None and section.model_fields[name].default == value


def _write_table(lines: list[str], table: Mapping[str, Any], path: tuple[str, ...]) -> None:
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, dict)}
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    if path and (plain or not tables):
        lines += ["", f"[{'.'.join(_key(part) for part in path)}]"]
    lines += [f"{_key(key)} = {format_value(value)}" for key, value in plain.items()]
    for key, inner in tables.items():
        # `layers` without a layer says nothing; a layer without a value still names the layer.
        if inner or path[-1:] == ("layers",):
            _write_table(lines, inner, (*path, key))


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else format_value(name)


def format_value(value: Any) -> str:
    """One value as TOML; what stands behind the `=` of an override."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's; DEL is the one character that TOML alone wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(format_value(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {format_value(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} has no TOML form here")


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

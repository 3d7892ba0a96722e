"""What the records in results/ say about a number: rows of studies, and runs of a recipe from before there were any."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alexnet.config import Recipe
from alexnet.config_io import diff_recipes, load_recipe
from alexnet.errors import UserError
from alexnet.reproduce.overrides import WITHOUT_EFFECT, is_one_of, with_effect
from alexnet.reproduce.record import recipe_of
from alexnet.reproduce.study import Interval, Row, Status
from alexnet.runtime.files import read_json

NO_ROW = "no such row"


@dataclass(frozen=True)
class Evidence:
    """What one record says about a number, which may be two: top-1 and top-5 error."""

    record: str
    """Name of its folder in results/."""
    rows: tuple[Row, ...]
    """One for each quantity; fewer where the record lacks some."""
    status: Status | None = None
    """The least favourable status of the rows of a study; None for runs of a recipe, which have no published value."""
    precision: str = ""
    """In which the runs were computed, where they did not leave that to the recipe."""
    remark: str = ""
    """Why it does not count; empty where it does."""

    @property
    def values(self) -> tuple[Mapping[int, float], ...]:
        """Of each quantity, seed -> value."""
        return tuple(row.values for row in self.rows)

    @property
    def means(self) -> tuple[float, ...]:
        return tuple(row.mean for row in self.rows if row.mean is not None)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The 95 % interval of each quantity; empty unless all have one, over the same."""
        found = [row.interval for row in self.rows]
        known = [interval for interval in found if interval is not None]
        return tuple(known) if len(known) == len(found) and len({each.over for each in known}) == 1 else ()

    @property
    def protocols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.protocol for row in self.rows if row.protocol))

    @property
    def at_least(self) -> bool:
        """Whether the values are lower bounds."""
        return any(row.at_least for row in self.rows)

    @property
    def num_seeds(self) -> int:
        return min((len(row.values) for row in self.rows), default=0)


def record_names(results: Path) -> list[str]:
    """The folders of records, oldest first: their names begin with the date."""
    return sorted(folder.name for folder in results.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def study_of(results: Path, record: str) -> str | None:
    """The study that left a record; None for a record from before there were studies."""
    return _read_record(results / record).get("study")


def _read_record(folder: Path) -> dict[str, Any]:
    """The contents of record.json; of a study, or of no more than its "runs"; empty where there is no such file."""
    file = folder / "record.json"
    if not file.is_file():
        return {}
    record = read_json(file, "restore it from where it was kept")
    if not {"study", "scale", "overrides", "rows"} <= record.keys() and record.keys() != {"runs"}:
        raise UserError(f"{file} is not the record of a study; name the folder of records with --data")
    return record


def study_evidence(
    results: Path,
    study: str,
    quantities: Sequence[str],
    num_images: Sequence[int] = (),
    recipe: str = "",
    network: Sequence[str] = (),
) -> list[Evidence]:
    """The named rows of every record of a study, oldest first.

    What cannot be held against a published number is there with a remark: the small form, overrides that change the
    result, no such row, a protocol that names none of the numbers of images in `num_images` or lacks a text of
    `network` (where both are empty: a network that was given), runs that are not of `recipe` (where that is empty: of
    any).
    """
    found = []
    for name in record_names(results):
        if study_of(results, name) != study:
            continue
        record = _read_record(results / name)
        saved = [row for quantity in quantities for row in record["rows"] if row["quantity"] == quantity]
        rows = tuple(Row.from_dict(row) for row in saved)
        evidence = Evidence(name, rows, _worst([row.status for row in rows]), _precision(record["overrides"]))
        remark = (
            _changed(record)
            or (_other_recipe(record, recipe) if recipe else "")
            or _without_values(rows, quantities)
            or _other_images(record, evidence.protocols, num_images, network)
        )
        found.append(replace(evidence, remark=remark))
    return found


def _precision(overrides: Sequence[str]) -> str:
    given = [text.partition("=")[2].strip(" \"'") for text in overrides if text.startswith("runtime.precision=")]
    return given[-1] if given else ""


def _other_recipe(record: Mapping[str, Any], recipe: str) -> str:
    """How the runs that a record keeps differ from today's recipe; the schedule may have been another then."""
    runs = record.get("runs")
    if not runs:
        return "its recipe is not kept"
    try:
        wanted = load_recipe(recipe)
        changed = {key for run in runs.values() for key in _differences(recipe_of(run), wanted)}
    except (UserError, ValidationError):
        return "a recipe of another version"
    return f"a changed recipe: {', '.join(sorted(changed))}" if changed else ""


def _differences(run: Recipe, wanted: Recipe) -> list[str]:
    differences = (key for key, _, _ in diff_recipes(wanted, run))
    return [key for key in differences if not is_one_of(key, WITHOUT_EFFECT)]


def _other_images(
    record: Mapping[str, Any], protocols: Sequence[str], num_images: Sequence[int], network: Sequence[str]
) -> str:
    said = "; ".join(protocols)
    wanted = [re.compile(rf"(?<![\d,]){number:,}(?![\d,])") for number in num_images]
    if not wanted and not network:
        # Whatever a network that was given has been trained on.
        return f"a given network: {said}" if record.get("checkpoint") else ""
    if not all(text in protocol for protocol in protocols for text in network):
        return f"another network: {said}"
    named = all(any(number.search(protocol) for number in wanted) for protocol in protocols)
    return "" if named or not wanted else f"other images: {said}"


_WORST_FIRST: tuple[Status, ...] = (
    "contradicted", "differs", "not resolved", "measured", "sign shown", "size consistent", "matched"
)  # fmt: skip


def _worst(statuses: Sequence[Status]) -> Status | None:
    return next((status for status in _WORST_FIRST if status in statuses), None)


def _changed(record: Mapping[str, Any]) -> str:
    if record["scale"] != "full":
        return f"{record['scale']} form"
    changes = with_effect(record["overrides"])
    return f"with {', '.join(changes)}" if changes else ""


def _without_values(rows: Sequence[Row], quantities: Sequence[str]) -> str:
    missing = set(quantities) - {row.quantity for row in rows}
    if missing:
        return f"{NO_ROW}: {', '.join(sorted(missing))}"
    return next((f"not run: {row.not_run}" for row in rows if not row.values), "")


def run_evidence(
    results: Path,
    recipe: str,
    keys: Sequence[str],
    *,
    num_images: Sequence[int],
) -> list[Evidence]:
    """What the runs of a recipe gave, by record and seed, oldest first; errors become percent.

    Only records without a study count, and runs whose recipe is `recipe` but for settings without effect. The numbers
    are those of the summary, of an evaluation on as many images as `num_images` allows.
    """
    found = []
    for name in record_names(results):
        record = _read_record(results / name)
        if "study" in record:
            continue
        of_seeds: dict[int, Mapping[str, Any]] = {}
        for run, summary in _runs_of(record, recipe):
            if summary.get("num_images") in num_images:
                of_seeds[run.seed] = summary
        if of_seeds:
            found.append(Evidence(name, tuple(_row_of_runs(key, of_seeds) for key in keys)))
    return found


def _row_of_runs(key: str, of_seeds: Mapping[int, Mapping[str, Any]]) -> Row:
    """One value of each run; errors become percent."""
    is_error = key.endswith("error")
    values = {seed: run[key] * (100 if is_error else 1) for seed, run in sorted(of_seeds.items())}
    # Only evaluations say of how many images they are; an error while training is of a network that changes.
    num_images = next(iter(of_seeds.values())).get("num_images") if is_error else None
    return Row(key, "%" if is_error else "", "", values, num_images=num_images)


def _runs_of(record: Mapping[str, Any], recipe: str) -> Iterator[tuple[Recipe, Mapping[str, Any]]]:
    """Recipe and summary of every run of `recipe` that a record keeps."""
    wanted = load_recipe(recipe)
    for kept in record.get("runs", {}).values():
        try:
            run = recipe_of(kept)
        except ValidationError:
            # A recipe that today's package does not know any more.
            continue
        if not _differences(run, wanted):
            yield run, kept["summary"] or {}

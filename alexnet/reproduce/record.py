"""The record of a finished study: record.json for programs, README.md for people, the logs and the figures."""

from __future__ import annotations

import json
import lzma
import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet.config import Recipe
from alexnet.config_io import to_toml
from alexnet.errors import UserError
from alexnet.reporting.metrics_log import read_events
from alexnet.reporting.run_record import RunRecord
from alexnet.reproduce.study import Interval, Outcome, Row, Study, describe_status
from alexnet.reproduce.workbench import Workbench
from alexnet.runtime.environment import describe_environment
from alexnet.runtime.files import read_json, write_text

LOGS = "metrics.jsonl.xz"
"""The metrics.jsonl of all trainings, each event with the name of its run."""
_SPEEDS = ("images_per_second", "data_wait_share", "seconds")
"""Left out of the logs: no number of a study comes from them, and they are most of the compressed bytes."""


def make_record(study: Study, bench: Workbench, outcome: Outcome) -> dict[str, Any]:
    """The record of a study as plain types."""
    return {
        "study": study.name,
        "title": study.title,
        "section": study.section,
        "data": bench.data,
        "checkpoint": None if bench.checkpoint is None else str(bench.checkpoint),
        "scale": bench.scale,
        "seeds": _seeds(bench, outcome),
        "overrides": list(bench.overrides),
        "rows": [row.to_dict() for row in outcome.rows],
        "figures": [_figure(bench.folder / name).name for name in outcome.figures],
        "notes": list(outcome.notes),
        "environment": _environment(bench),
        "runs": {_run_name(run, bench): _described_run(run) for run in bench.trained},
    }


def _figure(file: Path) -> Path:
    """The drawing of a figure where there is one: it is smaller than the picture, and sharp at any size."""
    drawing = file.with_suffix(".svg")
    return drawing if drawing.is_file() else file


def _run_name(run: Path, bench: Workbench) -> str:
    """NAME/seed-N of FOLDER/runs/NAME/seed-N."""
    return run.relative_to(bench.folder / "runs").as_posix()


def _described_run(run: Path) -> dict[str, Any]:
    """All that a training's numbers come from, without its log and its weights."""
    described: dict[str, Any] = {"recipe": tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))}
    for name in ("environment", "summary"):
        file = run / f"{name}.json"
        described[name] = read_json(file) if file.is_file() else None
    return described


def _seeds(bench: Workbench, outcome: Outcome) -> list[int]:
    """Those that were trained; a network that was given has its own."""
    return list(bench.seeds) if bench.checkpoint is None else sorted({s for row in outcome.rows for s in row.values})


def _environment(bench: Workbench) -> dict[str, Any]:
    """Of the training that was asked for last, which may have been done long before; without any, of this process."""
    files = [folder / "environment.json" for folder in reversed(bench.trained)]
    return next((read_json(file) for file in files if file.is_file()), describe_environment())


def write_record(study: Study, bench: Workbench, outcome: Outcome) -> dict[str, Any]:
    """Write the record, and return it.

    FOLDER/record/ then holds all that is worth keeping, without weights: it can be copied or committed as it is.
    """
    record = make_record(study, bench, outcome)
    kept = bench.folder / "record"
    if kept.is_dir():
        shutil.rmtree(kept)  # of an earlier call, perhaps with other seeds
    write_text(kept / "record.json", json.dumps(record, indent=1) + "\n")
    write_text(kept / "README.md", readme(record))
    for name in outcome.figures:
        file = _figure(bench.folder / name)
        if file.is_file():
            shutil.copyfile(file, kept / file.name)
    _write_logs(kept / LOGS, {_run_name(run, bench): run / "metrics.jsonl" for run in bench.trained})
    return record


def _write_logs(path: Path, logs: dict[str, Path]) -> None:
    events = [{"run": run, **event} for run, log in logs.items() if log.is_file() for event in read_events(log)]
    lines = [json.dumps({key: value for key, value in event.items() if key not in _SPEEDS}) for event in events]
    if lines:
        path.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9))


def read_runs(folder: Path) -> dict[str, RunRecord]:
    """Return the trainings that a record keeps, by name, with their events.

    Raises:
        UserError: If there is no record.
        ValidationError: If today's package does not know the keys of a recipe in it.
    """
    record = read_json(folder / "record.json", "restore it from where it was kept")
    runs = {
        name: RunRecord(
            folder,
            config=to_toml(recipe_of(run)),
            environment=run["environment"] or {},
            summary=run["summary"] or {},
        )
        for name, run in record["runs"].items()
    }
    if (folder / LOGS).is_file():
        for line in lzma.decompress((folder / LOGS).read_bytes()).decode().splitlines():
            event = json.loads(line)
            runs[event.pop("run")].events.append(event)
    return runs


def recipe_of(run: Mapping[str, Any]) -> Recipe:
    """The recipe of a run that a record keeps. Raises ValidationError where today's package does not know its keys."""
    return Recipe.model_validate(run["recipe"])


TABLE_HEAD = ("quantity", "published", "ours", "95 % interval", "seeds", "status")


def table_cells(row: Row) -> tuple[str, ...]:
    """A row as people read it, in the order of TABLE_HEAD."""
    interval = row.interval
    return (
        row.quantity,
        _with_unit(row.published, row.unit),
        _more(row) + _with_unit(row.mean, row.unit),
        "-" if interval is None else f"{interval_text(interval, row.unit)}, over {interval.over}",
        str(len(row.values)) if row.values else "-",
        describe_status(row.status, len(row.values)),
    )


def interval_text(interval: Interval, unit: str = "") -> str:
    """The two ends of an interval with "to" between."""
    return f"{number(interval.low, unit)} to {number(interval.high, unit)}"


def number(value: float, unit: str = "") -> str:
    """Two decimals, or three significant figures where that is more; whole steps as they are counted."""
    if unit == "steps" and value == round(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:#.3g}"


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{number(value, unit)} {unit}".rstrip()


def _more(row: Row) -> str:
    return "more than " if row.at_least else ""


def readme(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    environment = record["environment"]
    gpus = ", ".join(environment["devices"]) or "no GPU"
    machine = f"{environment['cores']} cores, {environment['processor']}, {gpus}"
    paragraphs = [
        f"# {record['title']}",
        f"Where it is from: {record['section']}.",
        numbers_text([Row.from_dict(row) for row in record["rows"]]),
        *(f"![{Path(name).stem}]({name})" for name in record["figures"]),
        *record["notes"],
        f"    {environment['command']}",
        f"Data {Path(record['data']).name}, scale {record['scale']}; torch {environment['versions']['torch']}, "
        f"{machine}. record.json holds each training's recipe, summary and environment, {LOGS} the logs.",
    ]
    return "\n\n".join(paragraphs) + "\n"


_INTERVALS = {
    "seeds": "An interval over seeds is Student's t-interval of the mean; it covers other seeds on the same images.",
    "images": "An interval over images is Wilson's of one network's error; it covers other images, not other seeds.",
}
_DIFFERENCES = (
    'A difference is judged by its interval over seeds: "not resolved" where the interval contains 0 or there is one '
    'seed; where it excludes 0, "size consistent" with the published value in it, "sign shown" on the published side '
    'of 0, "contradicted" on the other side, and "measured" without a comparable published value.'
)


def numbers_text(rows: Sequence[Row]) -> str:
    """The table of a record's rows, how to read it, and the protocol and the values of each row, in Markdown."""
    table = ["| " + " | ".join(TABLE_HEAD) + " |", "|" + "---|" * len(TABLE_HEAD)]
    table += ["| " + " | ".join(table_cells(row)) + " |" for row in rows]
    sampled = {row.interval.over for row in rows if row.interval is not None}
    legend = [text for over, text in _INTERVALS.items() if over in sampled]
    legend += [_DIFFERENCES] if any(row.is_difference for row in rows) else []
    paragraphs = ["\n".join(table), " ".join(legend), "\n".join(_explain(row) for row in rows)]
    return "\n\n".join(text for text in paragraphs if text)


def _explain(row: Row) -> str:
    each = ", ".join(f"seed {seed}: {number(value, row.unit)}" for seed, value in sorted(row.values.items()))
    each = _more(row) + each or f"Not run: {row.not_run}"
    source = f" Published: {row.published_source}." if row.published_source else ""
    within = f" Counts as matched within {number(row.tolerance, row.unit)}." if row.tolerance is not None else ""
    return f"- **{row.quantity}**: {row.protocol}. {each}.{source}{within}"


def refresh_record(folder: Path) -> None:
    """Compute the derived fields of a record again from its values, and write its numbers into its README.md again.

    What else stands in the README.md stays. Raises UserError where there is no record, or no table of one.
    """
    file, page = folder / "record.json", folder / "README.md"
    record = read_json(file, "restore it from where it was kept")
    rows = [Row.from_dict(row) for row in record["rows"]]
    record["rows"] = [row.to_dict() for row in rows]
    text = page.read_text(encoding="utf-8") if page.is_file() else readme(record)
    numbers = re.compile(rf"^\| {TABLE_HEAD[0]} \|.*^- \*\*[^\n]*$", re.MULTILINE | re.DOTALL)
    text, count = numbers.subn(lambda _: numbers_text(rows), text)
    if count != 1:
        raise UserError(f"{page} has no table of the record's numbers; delete it, and it is written again as a whole.")
    write_text(file, json.dumps(record, indent=1) + "\n")
    write_text(page, text)

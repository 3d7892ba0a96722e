"""What a finished study leaves: record.json for programs, README.md for people, and the runs' own small files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from alexnet.reproduce.study import Outcome, Row, Study
from alexnet.reproduce.workbench import Workbench
from alexnet.runtime.environment import describe_environment
from alexnet.runtime.files import read_json, write_text

RUN_FILES = ("config.toml", "environment.json", "metrics.jsonl", "summary.json")
"""What is kept of each training: all that its numbers come from, without the weights."""


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
        "figures": list(outcome.figures),
        "notes": list(outcome.notes),
        "environment": _environment(bench),
    }


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
    write_text(kept / "README.md", readme(record, outcome))
    for name in outcome.figures:
        for file in (bench.folder / name, (bench.folder / name).with_suffix(".svg")):
            if file.is_file():
                shutil.copyfile(file, kept / file.name)
    for run in bench.trained:
        target = kept / run.relative_to(bench.folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in RUN_FILES:
            if (run / name).is_file():
                shutil.copyfile(run / name, target / name)
    return record


TABLE_HEAD = ("quantity", "published", "ours", "spread", "seeds", "status")


def table_cells(row: Row) -> tuple[str, ...]:
    """A row as people read it, in the order of TABLE_HEAD."""
    return (
        row.quantity,
        _with_unit(row.published, row.unit),
        _more(row) + _with_unit(row.mean, row.unit),
        "-" if row.spread is None or row.at_least or len(row.values) < 2 else number(row.spread, row.unit),
        str(len(row.values)) if row.values else "-",
        row.status,
    )


def number(value: float, unit: str = "") -> str:
    """Two decimals, or three significant figures where that is more; whole steps as they are counted."""
    if unit == "steps" and value == round(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:#.3g}"


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{number(value, unit)} {unit}".rstrip()


def _more(row: Row) -> str:
    return "more than " if row.at_least else ""


def readme(record: dict[str, Any], outcome: Outcome) -> str:
    """The record for people, in Markdown."""
    table = ["| " + " | ".join(TABLE_HEAD) + " |", "|" + "---|" * len(TABLE_HEAD)]
    table += ["| " + " | ".join(table_cells(row)) + " |" for row in outcome.rows]
    environment = record["environment"]
    gpus = ", ".join(environment["devices"]) or "no GPU"
    machine = f"{environment['cores']} cores, {environment['processor']}, {gpus}"
    paragraphs = [
        f"# {record['title']}",
        f"Where it is from: {record['section']}.",
        "\n".join(table),
        "\n".join(_explain(row) for row in outcome.rows),
        *(f"![{Path(name).stem}]({name})" for name in outcome.figures),
        *outcome.notes,
        f"    {environment['command']}",
        f"Data {Path(record['data']).name}, scale {record['scale']}; torch {environment['versions']['torch']}, "
        f"{machine}. `runs/` holds each training's recipe, log, summary and environment.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _explain(row: Row) -> str:
    each = ", ".join(f"seed {seed}: {number(value, row.unit)}" for seed, value in sorted(row.values.items()))
    each = _more(row) + each or f"Not run: {row.not_run}"
    source = f" Published: {row.published_source}." if row.published_source else ""
    within = f" Counts as matched within {number(row.tolerance, row.unit)}." if row.tolerance is not None else ""
    return f"- **{row.quantity}**: {row.protocol}. {each}.{source}{within}"

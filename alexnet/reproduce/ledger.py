"""The ledger: every number of the paper beside what others published and what came out here, from the records alone.

The published side is `ledger.toml`, a calculation of `calculations.py` is one there too; ours comes from the records in
results/ (`evidence.py`), and a cell without a record stays empty.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from alexnet.reproduce.calculations import calculate
from alexnet.reproduce.evidence import Evidence, record_names, run_evidence, study_evidence, study_of
from alexnet.reproduce.record import interval_text
from alexnet.reproduce.record import number as readable
from alexnet.reproduce.study import Status, Study, describe_status

_NOTHING = "-"
_PUBLISHED = {"paper": "paper", "log": "2012 log", "caffe": "Caffe", "torchvision": "torchvision"}


@dataclass(frozen=True)
class Group:
    """A table of the ledger."""

    name: str
    title: str
    intro: str


@dataclass(frozen=True)
class Number:
    """A number that somebody published, or two with a slash between; ledger.toml says what each field means."""

    id: str
    group: str
    what: str
    protocol: str
    paper: str = _NOTHING
    log: str = _NOTHING
    caffe: str = _NOTHING
    torchvision: str = _NOTHING
    unit: str = ""
    command: str = ""
    needs: str = ""
    reading: str = ""
    study: str = ""
    quantities: Sequence[str] = ()
    recipe: str = ""
    keys: Sequence[str] = ()
    num_images: Sequence[int] = ()
    network: Sequence[str] = ()
    tolerance: float | None = None
    computed: str = ""
    golden: str = ""

    @property
    def published(self) -> str:
        """What ours is compared with: the paper's, or where it has none the log's."""
        return self.paper if self.paper != _NOTHING else self.log


@dataclass(frozen=True)
class Line:
    """A number with what is known about it here."""

    number: Number
    ours: str
    """Value, seeds and 95 % interval; "-" where there is nothing."""
    status: str
    evidence: Sequence[Evidence] = field(default_factory=tuple)
    """All records about it, oldest first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        published = {name: getattr(self.number, name) for name in ("id", "what", "unit", *_PUBLISHED, "protocol")}
        records = [item.record for item in self.evidence]
        return {**published, "ours": self.ours, "status": self.status, "records": records,
                "command": self.number.command}  # fmt: skip


def read_published() -> tuple[list[Group], list[Number]]:
    """The tables and the numbers of ledger.toml, in its order."""
    text = (resources.files("alexnet") / "reproduce" / "ledger.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    known = {item.name for item in fields(Number)}
    for entry in content["number"]:
        assert set(entry) <= known, f"{entry['id']}: {set(entry) - known}"
    return [Group(**entry) for entry in content["group"]], [Number(**entry) for entry in content["number"]]


def read_line(number: Number, results: Path) -> Line:
    """A number with everything the records in `results` say about it."""
    if number.computed:
        return _calculated(number)
    evidence = _evidence(number, results)
    counting = [item for item in evidence if not item.remark]
    if not counting:
        status = number.reading or f"not run: needs {number.needs}"
        return Line(number, _NOTHING, status, evidence)
    newest = counting[-1]
    return Line(number, _value(newest, number.unit), number.reading or _status(number, newest), evidence)


def _calculated(number: Number) -> Line:
    ours, golden = calculate(number.computed), number.golden or number.paper
    assert ours == golden, f"{number.id}: {ours} was calculated, {golden} is expected"
    unit = f" {number.unit}" if number.unit else ""
    return Line(number, f"{ours}{unit}", number.reading or "matched")


def _evidence(number: Number, results: Path) -> list[Evidence]:
    found = []
    if number.recipe and number.keys:
        found += run_evidence(results, number.recipe, number.keys, num_images=number.num_images)
    if number.study:
        found += study_evidence(
            results, number.study, number.quantities, number.num_images, number.recipe, number.network
        )
    return sorted(found, key=lambda item: item.record)


def _value(evidence: Evidence, unit: str) -> str:
    means = " / ".join(readable(value, unit) for value in evidence.means)
    seeds = f"{evidence.num_seeds} seeds" if evidence.num_seeds > 1 else "1 seed"
    if evidence.intervals:
        between = " / ".join(interval_text(interval, unit) for interval in evidence.intervals)
        seeds += f"; 95 % interval over {evidence.intervals[0].over}: {between}"
    more = "more than " if evidence.at_least else ""
    return f"{more}{means} {unit}".rstrip() + f" ({seeds})"


def _status(number: Number, evidence: Evidence) -> str:
    status: Status = evidence.status or _status_of_runs(number, evidence)
    return describe_status(status, evidence.num_seeds)


def _status_of_runs(number: Number, evidence: Evidence) -> Status:
    published = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", number.published)]
    if number.tolerance is None or len(published) < len(evidence.means):
        return "measured"
    near = all(abs(ours - theirs) <= number.tolerance for ours, theirs in zip(evidence.means, published, strict=False))
    return "matched" if near else "differs"


# ---------------------------------------------------------------- the page

_HEAD = """\
# Ledger

Every number of the paper, and of the nets for CIFAR-10 that its author's code came with, beside what others published
and what came out here. What the paper says in words stands here too where a number would settle it. This page is
written by `alexnet reproduce ledger --data results --output docs/ledger.md`: the published side is
`alexnet/reproduce/ledger.toml`, which names its sources; ours is read from the records in `results/`, or calculated
from the package's own layers and recipes, and is "-" where there is neither. A test
(`tests/unit/reproduce/test_ledger.py`) writes the page again and compares.

| status | |
|---|---|
| matched | the mean is within the tolerance that was stated before the run, or equal where it is calculated |
| differs | not so |
| size consistent | a difference: its 95 % interval over seeds excludes 0 and contains the published value |
| sign shown | a difference: its interval lies on the published side of 0, without the published value in it |
| contradicted | a difference: its interval lies on the other side of 0 |
| not resolved | a difference: its interval contains 0, or there is one seed |
| measured | there is a record; nothing comparable was published, or no tolerance was stated |
| not run | no record that counts; what is missing is named |

A verdict that rests on one seed says so. An interval over seeds is Student's t-interval of the mean, and is about other
seeds on the same images. An interval over images is Wilson's of one network's error, and is about other images.

Of several records the newest counts. A record of a study's small form, of changed recipes or of other images is named,
and does not count. "2012 log" is the log in the comments of the 2012 source; for CIFAR-10 it is what the author wrote
beside his files. A table leaves out the columns that it has no number for.
"""


def write_page(results: Path, studies: Mapping[str, Study], page: Path) -> str:
    """The ledger as Markdown; `page` is where it will be, from where its links lead to the records."""
    groups, numbers = read_published()
    link = os.path.relpath(results, page.parent).replace(os.sep, "/")
    lines = {number.id: read_line(number, results) for number in numbers}
    parts = [_HEAD]
    for group in groups:
        own = [line for line in lines.values() if line.number.group == group.name]
        parts.append(_table(group, own, link))
    parts.append(_other_studies(results, studies, {number.study for number in numbers}, link))
    parts.append(_records(results, list(lines.values()), link))
    return "\n".join(parts)


def _table(group: Group, lines: Sequence[Line], link: str) -> str:
    columns = [name for name in _PUBLISHED if any(getattr(line.number, name) != _NOTHING for line in lines)]
    head = ["number", *(_PUBLISHED[name] for name in columns), "ours", "status"]
    rows = [f"## {group.title}", group.intro, "", _row(head), "|" + "---|" * len(head)]
    for line in lines:
        published = [getattr(line.number, name) for name in columns]
        newest = ([item for item in line.evidence if not item.remark] or list(line.evidence))[-1:]
        ours = line.ours + "".join(f" [{_name(item)}]({link}/{item.record}/)" for item in newest)
        name = f'<a id="{line.number.id}"></a>[{line.number.what}](#about-{line.number.id})'
        rows.append(_row([name, *published, ours, line.status]))
    rows += ["", "How each is measured, and the command:", ""]
    rows += [_about(line, link) for line in lines]
    return "\n".join(rows) + "\n"


def _name(evidence: Evidence) -> str:
    return f"record, {evidence.remark.partition(':')[0]}" if evidence.remark else "record"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _about(line: Line, link: str) -> str:
    text = f'- <a id="about-{line.number.id}"></a>**{line.number.what}**: {line.number.protocol}.'
    counting = [item for item in line.evidence if not item.remark]
    if counting and counting[-1].protocols:
        text += f" Ours: {'; '.join(counting[-1].protocols)}{_in_precision(counting[-1])}."
    others = [
        f"[{item.record}]({link}/{item.record}/) ({_what_it_says(item, line.number.unit)})"
        for item in line.evidence
        if item is not (counting[-1] if counting else None)
    ]
    if others:
        text += f" Other records: {', '.join(others)}."
    return text + (f" `{line.number.command}`" if line.number.command else "")


def _in_precision(evidence: Evidence) -> str:
    return f"; computed in {evidence.precision}" if evidence.precision else ""


def _what_it_says(evidence: Evidence, unit: str) -> str:
    """Of a record that is not the newest that counts: its value, and why it does not count."""
    value = _value(evidence, unit) if evidence.values and all(evidence.values) else ""
    return "; ".join(part for part in (value, evidence.remark) if part)


def _other_studies(results: Path, studies: Mapping[str, Study], named: set[str], link: str) -> str:
    head = ["study", "what", "records"]
    rows = ["## Studies without a published number", "", _row(head), "|---|---|---|"]
    for study in studies.values():
        if study.name not in named:
            records = [name for name in record_names(results) if study_of(results, name) == study.name]
            links = ", ".join(f"[{name}]({link}/{name}/)" for name in records) or "not run"
            rows.append(_row([f"`alexnet reproduce {study.name}`", study.title, links]))
    return "\n".join(rows) + "\n"


def _records(results: Path, lines: Sequence[Line], link: str) -> str:
    """From each record to the numbers that come from it."""
    rows = ["## From a record to its numbers", "", _row(["record", "numbers here"]), "|---|---|"]
    for name in record_names(results):
        own = [line.number for line in lines if any(item.record == name for item in line.evidence)]
        links = ", ".join(f"[{item.id}](#{item.id})" for item in own) or "none of the paper's; see the record"
        rows.append(_row([f"[{name}]({link}/{name}/)", links]))
    return "\n".join(rows) + "\n"

"""A finding: something that is wrong, or worth knowing, with its evidence and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.doctor.catalogue import CATALOGUE
from alexnet.doctor.entry import Severity

MAX_EVIDENCE = 5
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing found; `id` is its entry in the catalogue (docs/doctor.md)."""

    id: str
    severity: Severity
    about: str
    """What it was found in, as the person named it."""
    what: str
    evidence: tuple[str, ...]
    remedy: str


def finding(
    id: str,
    about: str,
    what: str,
    evidence: Sequence[str] = (),
    *,
    severity: Severity | None = None,
    remedy: str | None = None,
) -> Finding:
    """A finding of the catalogue; severity and remedy are the catalogue's unless given."""
    entry = CATALOGUE[id]
    return Finding(id, severity or entry.severity, about, what, tuple(evidence), remedy or entry.remedy)


def capped(items: Sequence[str], total: int | None = None) -> list[str]:
    """The first few, and how many more there are (of `total`, where `items` is a part already)."""
    total = len(items) if total is None else total
    shown = list(items[:MAX_EVIDENCE])
    return [*shown, f"and {total - len(shown)} more"] if total > len(shown) else shown


def some(names: Sequence[str]) -> str:
    """The first few names in one line, and how many more."""
    return ", ".join(capped(names))


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing but notes was found."""
    return all(item.severity == "note" for item in findings)

"""The form of an entry in the catalogue of findings."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["problem", "warning", "note"]
PROBLEM: Severity = "problem"
WARNING: Severity = "warning"
NOTE: Severity = "note"


class Entry(NamedTuple):
    """What is always true of a finding of this kind."""

    severity: Severity
    """problem: it will fail or give wrong numbers; warning: it probably does; note: nothing to do."""
    cause: str
    remedy: str

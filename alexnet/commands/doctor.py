"""`alexnet doctor`: what is wrong, in plain words, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from alexnet.commands.output import print_json
from alexnet.doctor.examine import examine, sort_things
from alexnet.doctor.findings import SEVERITIES, Finding, is_healthy
from alexnet.reporting.progress import Progress
from alexnet.runtime.text import printable

_STYLES = {"problem": "bold red", "warning": "yellow", "note": "dim"}


def doctor_command(
    arguments: Sequence[str],
    data: Sequence[str],
    *,
    init: str | None = None,
    full: bool,
    replay: bool = False,
    as_json: bool,
) -> bool:
    """Examine the named things (none: the machine) and print the findings; returns whether there are only notes."""
    things = sort_things(arguments, data, init)
    if replay:
        with Progress("silent" if as_json else "auto") as display:
            findings = examine(things, full=full, display=display)
    else:
        findings = examine(things, full=full)
    healthy = is_healthy(findings)
    if as_json:
        counts = Counter(item.severity for item in findings)
        print_json(
            {
                "healthy": healthy,
                "counts": {severity: counts[severity] for severity in SEVERITIES},
                "findings": [asdict(item) for item in findings],
            }
        )
    else:
        _print(findings)
    return healthy


def _print(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False)
    width = console.width if console.is_terminal else 10**6  # text that is piped is not broken into lines
    about = None
    for item in findings:
        if item.about != about:
            about = item.about
            console.print(Text(printable(about), style="bold"), width=width, soft_wrap=True)
        head = Text(f"  {item.severity} {item.id}: ", style=_STYLES[item.severity])
        console.print(head.append(printable(item.what), style="default"), width=width, soft_wrap=True)
        for row in item.evidence:
            console.print(Text(f"      {printable(row)}", style="dim"), width=width, soft_wrap=True)
        if item.severity != "note" or not item.remedy.startswith("Nothing"):
            console.print(Text(f"    -> {printable(item.remedy)}"), width=width, soft_wrap=True)
    console.print(Text(_conclusion(findings)), width=width, soft_wrap=True)


def _conclusion(findings: Sequence[Finding]) -> str:
    counts = Counter(item.severity for item in findings)
    named = [f"{counts[s]} {s}{'s' if counts[s] != 1 else ''}" for s in SEVERITIES if counts[s]]
    if is_healthy(findings):
        return f"Nothing wrong was found{f' ({named[0]})' if named else ''}."
    return f"{', '.join(named)}."

"""`alexnet report`: a run's report.html, written again."""

from __future__ import annotations

from pathlib import Path

from alexnet.commands.output import print_json
from alexnet.errors import UserError
from alexnet.runtime.text import print_lines


def report_command(run: Path, *, as_json: bool) -> None:
    """Write RUN/report.html and print where it is. Raises UserError where there is no run, or no final evaluation."""
    if not (run / "config.toml").is_file():
        raise UserError(f"{run} is not a run's folder (it has no config.toml); give the --output of a training")
    from alexnet.reporting.report import write_report

    path = write_report(run)
    if as_json:
        print_json({"report": str(path)})
    else:
        print_lines(str(path))

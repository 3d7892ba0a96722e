"""`alexnet reproduce ledger` and `records`: the pages that are written from a folder of records."""

from __future__ import annotations

from pathlib import Path

from alexnet.commands.output import print_json
from alexnet.errors import UserError
from alexnet.reproduce.catalogue import STUDIES
from alexnet.reproduce.evidence import record_names, study_of
from alexnet.reproduce.ledger import read_line, read_published, write_page
from alexnet.reproduce.record import refresh_record
from alexnet.runtime.files import write_text
from alexnet.runtime.text import print_lines


def ledger_command(data: str | None, output: Path | None, *, as_json: bool) -> None:
    """Print the ledger as Markdown, or write it to a file; with --json the same as data."""
    results = _folder_of_records(data)
    if as_json:
        if output is not None:
            raise UserError("--output is for the page; with --json the numbers are printed")
        print_json({"numbers": [read_line(number, results).to_dict() for number in read_published()[1]]})
        return
    page = write_page(results, STUDIES, output or Path("ledger.md"))
    if output is None:
        print_lines(*page.rstrip("\n").split("\n"))
        return
    try:
        write_text(output, page)
    except OSError as error:
        raise UserError(f"cannot write --output {output}: {error.strerror}; give the path of a file") from None
    print_lines(f"Ledger: {output}")


def records_command(data: str | None) -> None:
    """Compute the derived fields of every record of a study again, with the numbers of its README.md; print which."""
    results = _folder_of_records(data)
    for name in record_names(results):
        if study_of(results, name) is not None:
            refresh_record(results / name)
            print_lines(f"Record: {results / name}")


def _folder_of_records(data: str | None) -> Path:
    results = Path(data or "results")
    if not results.is_dir():
        raise UserError(f"there is no folder of records {results}; name it with --data")
    if not any((folder / name).is_file() for folder in results.iterdir() for name in ("record.json", "README.md")):
        raise UserError(f"{results} holds no records, which are folders with a record.json or a README.md")
    return results

"""`alexnet push`: a checkpoint to a folder of files with a card, and the folder to the Hugging Face Hub."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import typer

from alexnet.commands.output import print_json
from alexnet.errors import UserError
from alexnet.evaluation.subjects import describe
from alexnet.hub.remote import check_name, require_hub, upload
from alexnet.hub.repository import CARD, PLACEHOLDER, WEIGHTS, file_facts, read_weights
from alexnet.reporting.console import print_table
from alexnet.runtime.files import write_text
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import Checkpoint


def push_command(
    checkpoint: Path,
    repo: str | None,
    *,
    output: Path | None,
    license: str | None,
    private: bool,
    branch: str | None,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the files, show them, and upload them where a repository is named and the person agrees."""
    require_hub()
    if repo is None and output is None:
        raise UserError("give the repository, USER/NAME, or --output DIR to have the files only")
    if repo is not None:
        check_name(repo)
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise UserError(f"--license {license!r}: the Hub names licences as in cc-by-4.0, mit, apache-2.0, other")
    if quiet:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    is_written = (checkpoint / WEIGHTS).is_file()
    if is_written and (output is not None or license is not None):
        raise UserError(
            f"{checkpoint} holds the files already, and they are uploaded as they are; leave out --output and "
            f"--license, or edit {CARD}"
        )
    place = nullcontext(output) if output is not None else tempfile.TemporaryDirectory()
    with nullcontext(checkpoint) if is_written else place as folder:
        folder = Path(folder)
        pushed = _complete(folder, repo) if is_written else _write(checkpoint, folder, repo, license)
        facts = {"checkpoint": pushed.selection, "step": pushed.step}
        record: dict[str, Any] = {**facts, "files": file_facts(folder), "output": output, "repo": repo, "url": None}
        if not as_json and not quiet:
            print_lines(f"Network: {describe(pushed)}")
            _show(record["files"])
        if repo is not None:
            _confirm(repo, private=private, yes=yes)
            message = "Weights and card by alexnet"
            record["url"] = upload(folder, repo, private=private, branch=branch, message=message)
    if as_json:
        print_json(record)
    elif repo is not None:
        print_lines(f"Uploaded: {record['url']}", f"To use it: alexnet predict hf:{repo} image.jpg")
    else:
        print_lines(f"To upload them: alexnet push {output} USER/NAME")


def _write(checkpoint: Path, folder: Path, repo: str | None, license: str | None) -> Checkpoint:
    """Write the files, and return the checkpoint that is in them."""
    from alexnet.hub.model import HubAlexNet

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {folder} is there already; give a new folder")
    model = HubAlexNet.from_checkpoint(checkpoint)
    model.save_pretrained(folder, model_card_kwargs={"repo_id": repo, "license": license})
    return model.checkpoint


def _complete(folder: Path, repo: str | None) -> Checkpoint:
    """See that the files are whole, let the card say where they will be, and return the checkpoint."""
    checkpoint = read_weights(folder / WEIGHTS)
    card = folder / CARD
    if repo is not None and card.is_file():
        text = card.read_text(encoding="utf-8")
        if PLACEHOLDER in text:
            write_text(card, text.replace(PLACEHOLDER, repo))
    return checkpoint


def _show(files: dict[str, dict[str, Any]]) -> None:
    rows = [[name, f"{facts['bytes']:,}", facts["sha256"][:16]] for name, facts in files.items()]
    print_table(["file", "bytes", "sha256"], rows, numeric=["bytes"])


def _confirm(repo: str, *, private: bool, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nothing was uploaded: add --yes, since nobody can be asked here")
    kind = "private" if private else "public"
    if not typer.confirm(f"Upload these files to {repo} on the Hub ({kind} where it is new)?", err=True):
        raise UserError("nothing was uploaded")

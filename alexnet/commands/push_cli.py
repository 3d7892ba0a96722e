"""The command line of `alexnet push`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Json, Quiet

PUSH_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet push runs/photos ada/alexnet-photos --license cc-by-4.0\n"
    "  alexnet push runs/photos --output card             the files only, to look at, and to edit README.md\n"
    "  alexnet push card ada/alexnet-photos               ... and then as they are\n\n"
    "Afterwards `alexnet predict hf:ada/alexnet-photos image.jpg` works anywhere. `hf auth login` logs in."
)


def push(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, a run's folder, or a folder that push wrote.")
    ],
    repo: Annotated[
        str | None,
        typer.Argument(
            metavar="USER/NAME", help="The repository; it is made where it is not there.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the files to this new folder, to keep them; without USER/NAME only that.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="Of the weights, as the Hub names licences: cc-by-4.0, mit, ...")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    branch: Annotated[str | None, typer.Option(help="The branch to write to (default: main).")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put a trained network on the Hugging Face Hub, with a card that holds its results and how they were measured.

    What is uploaded: the weights as safetensors, config.json, README.md. Paths of this machine are left out.
    """
    from alexnet.commands.push import push_command

    push_command(
        checkpoint,
        repo,
        output=output,
        license=license,
        private=private,
        branch=branch,
        yes=yes,
        as_json=json,
        quiet=quiet,
    )

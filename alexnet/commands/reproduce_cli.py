"""The command line of `alexnet reproduce`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Json, Quiet

REPRODUCE_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet reproduce list                            every study, what it needs and costs\n"
    "  alexnet reproduce ledger                          every number of the paper beside ours, from results/\n"
    "  alexnet reproduce records                         compute intervals and verdicts of results/ again\n"
    "  alexnet reproduce cifar-26 --data cifar-10-batches-py\n"
    "  alexnet reproduce cifar-18 --data cifar-10-batches-py --seeds 0,1,2 runtime.num_threads=1\n"
    "  alexnet reproduce figure-3 --checkpoint runs/mine\n\n"
    "The output's record/ holds the numbers, the figures and each training's recipe and log, without weights."
)


def reproduce(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|list|ledger|records|section.key=value...",
            help="One study, and values laid over the recipes of all its runs.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help="The images, as for train; `list` says what each needs.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint or a run's folder, for studies that can do without training.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The study's folder (default: runs/NAME).")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds with commas between (default: the study's own).")] = None,
    scale: Annotated[str, typer.Option(help="full, or small: a short form, for a look at how it goes.")] = "full",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do a table, figure or ablation of the paper again: train, draw, compare with what was published.

    Stop it whenever you like: the same command goes on where it stopped; what is trained is not trained again.
    """
    from alexnet.commands.reproduce import reproduce_command

    code = reproduce_command(
        arguments, data, output, checkpoint=checkpoint, seeds=seeds, scale=scale, as_json=json, quiet=quiet
    )
    raise typer.Exit(code)

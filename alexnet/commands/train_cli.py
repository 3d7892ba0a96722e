"""The command line of `alexnet train`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import DATA_HELP, Json, Quiet

TRAIN_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet train                                     the built-in digits, in minutes\n"
    "  alexnet train folder --data photos                your own images, one folder a class\n"
    "  alexnet train transfer --data photos --init runs/imagenet    ... beginning with a trained network\n"
    "  alexnet train cifar-quick --data cifar-10-batches-py --output runs/quick\n"
    "  alexnet train folder --data photos optimizer.lr=0.002 train.epochs=200\n\n"
    "`alexnet recipe list` lists the recipes, `alexnet recipe show folder` every key that can be overridden."
)


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE|section.key=value",
            help="A recipe's name or .toml file (default: digits; with --init, transfer), and values that replace the "
            "recipe's, in TOML.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The run's folder (default: runs/RECIPE-DATA). If it holds this run, the run goes on."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Begin with a trained network: a checkpoint, a run's folder, or hf:USER/NAME. Its network and the "
            "form of its images take the place of the recipe's; the last layer is new where the classes are.",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(metavar="LAYER,LAYER", help="Layers that learn nothing: optimizer.layers.LAYER.lr_factor=0."),
    ] = None,
    on_stuck: Annotated[
        str | None,
        typer.Option(help="When the loss stays at guessing: warn or stop (exit code 1). Default: the recipe's, warn."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Train in so many processes of this machine, a GPU each. Other machines: torchrun."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network by a recipe, evaluate it, report.

    Stop it whenever you like: the same command goes on where it stopped, to the same weights.
    """
    if devices is not None:
        from alexnet.commands.launch import launch, without_devices

        raise typer.Exit(launch(devices, without_devices(sys.argv[1:])))
    from alexnet.commands.train import train_command

    code = train_command(
        arguments or [], data, output, init=init, freeze=freeze, on_stuck=on_stuck, as_json=json, quiet=quiet
    )
    raise typer.Exit(code)

"""The command lines of `alexnet features` and `alexnet neighbours`; as in cli.py, nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet.commands.options import Device, Json, Quiet

FEATURES_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet features runs/photos photos --output photos.npz             a data set, both splits\n"
    "  alexnet features runs/photos holiday/ --layer fc6 --output holiday.parquet\n"
    "  alexnet features runs/photos a.jpg b.jpg --layer pool5 --views ten_crop --output two.npz\n\n"
    "docs/seeing.md has the contents of the files, and how to use them from Python."
)
NEIGHBOURS_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet neighbours runs/photos cat.jpg --among photos.npz\n"
    "  alexnet neighbours runs/photos cat.jpg dog.jpg --among photos --output nearest.png"
)
Layer = Annotated[
    str | None,
    typer.Option(help="Any layer by its name, see `alexnet info` (default: the one that the classifier reads, relu7)."),
]


def features(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or a run's folder.")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...|DATA", help="Files, folders or addresses of images; or one data set, as for train."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The file to write: .npz, or .parquet (extra `parquet`).")],
    layer: Layer = None,
    views: Annotated[str, typer.Option(help="center; flip or ten_crop: the mean over the views.")] = "center",
    split: Annotated[str | None, typer.Option(help="Of a data set: train, val or all (the default).")] = None,
    precision: Annotated[str, typer.Option(help="float32 or float16: how the numbers are kept.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Views per forward pass.", min=1)] = 128,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write what a layer makes of images to a file, one row an image, with their names and classes.

    One batch is in memory at a time, however many images there are.
    """
    from alexnet.commands.features import features_command

    kept: Any = precision
    features_command(
        checkpoint, images, layer=layer, output=output, views=views, split=split, precision=kept,
        batch_size=batch_size, device=device, as_json=json, quiet=quiet,
    )  # fmt: skip


def neighbours(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or a run's folder.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders or addresses of images to look for.")
    ],
    among: Annotated[
        str, typer.Option(help="A file of `alexnet features`, or a data set or images, whose features are made now.")
    ],
    count: Annotated[int, typer.Option(help="How many neighbours of each image.", min=1)] = 6,
    layer: Layer = None,
    split: Annotated[str | None, typer.Option(help="Of a data set: train, val or all (the default).")] = None,
    output: Annotated[Path | None, typer.Option(help="Draw them too, to a .png or .svg file.")] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the images that a network takes for the most alike (paper, Figure 4 right).

    By Euclidean distance between the outputs of a layer; exactly, every image is compared.
    """
    from alexnet.commands.neighbours import neighbours_command

    failed = neighbours_command(
        checkpoint, images, among, count=count, layer=layer, split=split, output=output, device=device,
        as_json=json, quiet=quiet,
    )  # fmt: skip
    if failed:
        raise typer.Exit(2)

"""What `alexnet prepare` takes on the command line; the work is in commands/prepare.py, which is imported to do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOURCE_HELP = (
    "Archives, a folder, parquet files, shards, a list of path and label; or imagenette, imagewoof (each also -320 or "
    "-160), tiny-imagenet, cifar10 to download."
)
EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet prepare downloads/ imagenet        ILSVRC2012_img_train.tar, ..._img_val.tar and the devkit\n"
    "  alexnet prepare imagenette-160 nette       downloaded from its official address\n"
    "  alexnet prepare photos photos-256 --format raw\n\n"
    "docs/data.md has all forms that are recognised, and the format that is written."
)


def prepare(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder for the prepared data set.")],
    size: Annotated[
        int | None, typer.Option(help="Side of the squares in pixels (default: 256; less for smaller sets).", min=8)
    ] = None,
    quality: Annotated[int, typer.Option(help="Of JPEG.", min=1, max=100)] = 95,
    format: Annotated[
        str | None, typer.Option(help="jpeg or raw (uncompressed; the default for CIFAR-10, jpeg elsewhere).")
    ] = None,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Keep the files as they are, neither resized nor encoded again.")
    ] = False,
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of each class held out where a set has no validation images (0.1).")
    ] = None,
    images_per_shard: Annotated[int | None, typer.Option(help="Default: as many as make 256 MB.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Threads (default: one a core).", min=0)] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Where downloaded archives are kept (default: beside DEST).")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare official archives with their published md5 sums.")] = True,
    allow_damaged: Annotated[
        bool, typer.Option("--allow-damaged", help="Prepare what is whole of an archive that is cut off or changed.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another prepared data set that is in DEST.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Make a prepared data set of any form of ImageNet, or of any images.

    Stop it whenever you like: the same command goes on where it stopped, to the same bytes.
    """
    from alexnet.commands.prepare import prepare_command

    prepare_command(
        source,
        dest,
        image_size=size,
        quality=quality,
        format=format,
        keep_original=keep_original,
        val_fraction=val_fraction,
        images_per_shard=images_per_shard,
        num_workers=workers,
        downloads=downloads,
        verify=verify,
        allow_damaged=allow_damaged,
        overwrite=overwrite,
        as_json=json,
        quiet=quiet,
    )

"""The command line of `alexnet export`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Json, Quiet

EXPORT_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet export runs/photos --output photos.onnx\n"
    "  alexnet export runs/photos --output photos.onnx --weights int8 --data photos\n"
    "  alexnet export runs/photos --output photos.pt2 --images holiday/\n"
    "  alexnet export runs/photos --format web --output site    a page that runs the network in the browser\n\n"
    "Every program is run before it is kept; exit code 1 means that it does not compute what the network does. "
    "docs/exports.md shows how to use the files."
)


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or a run's folder.")],
    output: Annotated[Path, typer.Option(help="The file to write; for web, the folder.")],
    format: Annotated[
        str | None,
        typer.Option(help="onnx, pt2, web, safetensors or torchvision. Default: what the file's suffix says."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="How they are stored: float32, float16 or int8. Default: int8 for web, else float32."),
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Give the logits too, as a second output.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Measure the error on this data set, of the network and of the file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of --data: val or train.")] = "val",
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Photographs to verify the file on, files or folders (default: those of --data, or drawn)."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference between the file and the network that is accepted.", min=0)
    ] = 1e-4,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT2", help="For web: a second network, beside the first.", show_default=False),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="For web: ONNX Runtime Web, an unpacked npm package or its .tgz (default: fetched once by npm).",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a network as a file that other programs run: images in, probabilities out; or as a web page.

    The preprocessing is inside, and the class names are in the file. What is written is run and compared.
    """
    from alexnet.commands.export import export_command

    export_command(
        checkpoint,
        output,
        format=format,
        weights=weights,
        logits=logits,
        data=data,
        split=split,
        images=images or [],
        tolerance=tolerance,
        compare=compare,
        runtime=runtime,
        as_json=json,
        quiet=quiet,
    )

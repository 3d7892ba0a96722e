"""The command line of `alexnet import`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Json, Quiet

IMPORT_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet import IMAGENET1K_V1 --output torchvision.pt     torchvision's weights, fetched\n"
    "  alexnet import bvlc_alexnet --output caffe.pt            Caffe's, with their mean image\n"
    "  alexnet import model.pth --classes names.txt --output mine.pt\n"
    "  alexnet import places.caffemodel --mean places_mean.binaryproto --classes places.txt\n"
    "  alexnet import bvlc_alexnet.npy --allow-pickle\n\n"
    "No code from a file is run. docs/weights.md has what is read of each kind of file."
)


Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME",
        help="A .pth, .pt, .caffemodel, .npy or .safetensors; or IMAGENET1K_V1, bvlc_alexnet, bvlc_reference_caffenet.",
    ),
]
Output = Annotated[
    Path | None, typer.Option(help="The checkpoint to write (default: the file's name with .pt, in this folder).")
]
Variant = Annotated[str | None, typer.Option(help="Which network the weights are of, where several have their shapes.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of the network's input in pixels (default: the variant's).", min=1)
]
ClassNames = Annotated[
    Path | None, typer.Option(help="A file that names the outputs (default: ImageNet's for 1,000, or numbers).")
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="What is subtracted: a .binaryproto, an .npy, or three numbers in the network's order (blue first for "
        "Caffe's)."
    ),
]
Resize = Annotated[
    int | None, typer.Option(help="Side of the squares that crops are cut from (default: 256 for 224).", min=1)
]
Key = Annotated[
    str | None, typer.Option(help="The entry that holds the weights, of a file with several (model, model_ema).")
]


def import_(
    source: Source,
    output: Output = None,
    variant: Variant = None,
    image_size: ImageSize = None,
    classes: ClassNames = None,
    mean: Mean = None,
    std: Annotated[str | None, typer.Option(help="Three numbers to divide by, for inputs of unit scale.")] = None,
    resize: Resize = None,
    key: Key = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read the pickled dictionary of an .npy; nothing in it is run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT where it is there.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a checkpoint of weights that another program wrote.

    Which network it is, is recognised; every shape is compared; what was assumed is said.
    """
    from alexnet.commands.import_weights import import_command

    import_command(
        source,
        output,
        variant=variant,
        image_size=image_size,
        classes=classes,
        mean=mean,
        std=std,
        resize=resize,
        key=key,
        allow_pickle=allow_pickle,
        overwrite=overwrite,
        as_json=json,
        quiet=quiet,
    )

"""The command line of `alexnet visualize`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Device, Json, Quiet

VISUALIZE_EPILOG = (
    "WHAT:\n\n\b\n"
    "  kernels       the first convolution's, in their banks (paper, Figure 3)\n"
    "  activations   one image through all layers               --layer --maps --top\n"
    "  gradcam       where it saw what speaks for a class       --layer --class --top\n"
    "  gradients     which pixels matter to a class most        --class --top --samples --seed\n"
    "  occlusion     what happens when a part is hidden         --class --top --patch --stride --batch-size\n"
    "  heatmap       the class at every place of a large image  --class --top --side\n"
    "  units         the images that excite units most          --data --split --layer --unit --count --batch-size\n"
    "  tsne          a map of a data set                        --data --split --layer --count --seed --thumbnails\n"
    "                                                           --batch-size\n\n"
    "Examples:\n\n\b\n"
    "  alexnet visualize runs/photos kernels --output kernels.png\n"
    "  alexnet visualize runs/photos gradcam cat.jpg dog.jpg --output seen.png\n"
    "  alexnet visualize runs/photos heatmap street.jpg --class car --side 512 --output cars.svg\n"
    "  alexnet visualize runs/photos units --layer relu5 --unit 17 --unit 40 --output units.png\n"
    "  alexnet visualize runs/photos tsne --data photos --thumbnails --output map.png\n\n"
    "docs/seeing.md says how to read the pictures."
)


Images = Annotated[
    list[str] | None,
    typer.Argument(metavar="[IMAGE...]", help="Files, folders or addresses, for what is about images."),
]
Layers = Annotated[
    list[str] | None, typer.Option(help="A layer by its name; for activations several, each with --layer.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="A class by its name, id or number; several, each with --class."),
]
Top = Annotated[
    int | None,
    typer.Option(help="Without --class: so many best guesses (1; 3 for gradcam, 5 for activations).", min=1),
]
Maps = Annotated[
    int | None, typer.Option(help="Maps of a layer, the strongest ones (16; all of a single layer).", min=1)
]
Samples = Annotated[
    int | None, typer.Option(help="Average over so many copies of the image with noise (1: without).", min=1)
]
Patch = Annotated[int | None, typer.Option(help="Side of the patch, pixels (a seventh of the input).", min=1)]
Stride = Annotated[int | None, typer.Option(help="Pixels from place to place (a quarter of the patch).", min=1)]
Side = Annotated[int | None, typer.Option(help="Shorter side of the enlarged image, pixels (twice the input).", min=1)]
Data = Annotated[
    str | None,
    typer.Option(
        help="A data set, as for train, or a folder of images (default: what it was trained on); tsne also takes a "
        "file of `alexnet features`."
    ),
]
SplitName = Annotated[str | None, typer.Option(help="Of a data set: train, val or all (val).")]
Units = Annotated[
    list[int] | None, typer.Option(help="A map or feature by its number from 0; several, each with --unit.", min=0)
]
Count = Annotated[
    int | None, typer.Option(help="Images for each unit (8), or on the map, drawn at random (1000).", min=1)
]
Seed = Annotated[int | None, typer.Option(help="Of what is drawn at random (0).", min=0)]
Thumbnails = Annotated[bool, typer.Option("--thumbnails", help="Small images in place of points.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per forward pass (64).", min=1)]


def visualize(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or a run's folder.")],
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="kernels, activations, gradcam, gradients, occlusion, heatmap, units or tsne (see below).",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The picture: a .png or .svg file.")],
    images: Images = None,
    layer: Layers = None,
    class_: Classes = None,
    top: Top = None,
    maps: Maps = None,
    samples: Samples = None,
    patch: Patch = None,
    stride: Stride = None,
    side: Side = None,
    data: Data = None,
    split: SplitName = None,
    unit: Units = None,
    count: Count = None,
    seed: Seed = None,
    thumbnails: Thumbnails = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what a network sees: kernels, activations, where a class is, what a unit looks for, a map of a data set."""
    from alexnet.commands.visualize import Options, visualize_command

    options = Options(
        layer=tuple(layer or ()), class_=tuple(class_ or ()), top=top, maps=maps, samples=samples, patch=patch,
        stride=stride, side=side, data=data, split=split, unit=tuple(unit or ()), count=count, seed=seed,
        thumbnails=thumbnails, batch_size=batch_size,
    )  # fmt: skip
    visualize_command(checkpoint, what, images or [], output, options, device=device, as_json=json, quiet=quiet)

"""Options that several commands take. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Device = Annotated[str, typer.Option(help="auto (cuda, then mps, then cpu), or a device of torch.")]

DATA_HELP = (
    "A path or a name: digits or shapes (built in), a folder with one folder a class (with train/ and val/ above them "
    "or not), a prepared data set or its address (https://, s3://), the original files of CIFAR-10, Tiny-ImageNet-200 "
    "or Imagenette. KIND:PATH settles the kind."
)

"""The command line: what each command takes, and how a failure is told.

Nothing heavy is imported here: a command imports what it needs when it runs, so that `alexnet --help` is quick.
`alexnet train` leads to `training/run.py`; the bodies of the other commands are in `commands/`.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from alexnet._version import __version__
from alexnet.commands.benchmark_cli import benchmarks
from alexnet.commands.export_cli import EXPORT_EPILOG, export
from alexnet.commands.features_cli import FEATURES_EPILOG, NEIGHBOURS_EPILOG, features, neighbours
from alexnet.commands.import_cli import IMPORT_EPILOG, import_
from alexnet.commands.options import DATA_HELP, Device, Json, Quiet
from alexnet.commands.push_cli import PUSH_EPILOG, push
from alexnet.commands.reproduce_cli import REPRODUCE_EPILOG, reproduce
from alexnet.commands.serve_cli import SERVE_EPILOG, serve
from alexnet.commands.train_cli import TRAIN_EPILOG, train
from alexnet.commands.visualize_cli import VISUALIZE_EPILOG, visualize
from alexnet.errors import RunError, UserError
from alexnet.runtime.processes import end_process
from alexnet.runtime.text import print_lines

app = typer.Typer(
    name="alexnet",
    help="AlexNet as it was really run in 2012: train, evaluate and use it.",
    epilog="With nothing prepared, `alexnet train` trains the network on built-in handwritten digits.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
recipes = typer.Typer(help="List, show, compare and check recipes.", no_args_is_help=True, rich_markup_mode=None)
app.command(epilog=TRAIN_EPILOG)(train)
app.add_typer(recipes, name="recipe")
app.add_typer(benchmarks, name="benchmark")
app.command(epilog=REPRODUCE_EPILOG)(reproduce)
app.command(epilog=EXPORT_EPILOG)(export)
app.command(epilog=PUSH_EPILOG)(push)
app.command("import", epilog=IMPORT_EPILOG)(import_)
app.command(epilog=SERVE_EPILOG)(serve)
app.command(epilog=FEATURES_EPILOG)(features)
app.command(epilog=NEIGHBOURS_EPILOG)(neighbours)
app.command(epilog=VISUALIZE_EPILOG)(visualize)

SOURCE_HELP = (
    "Archives, a folder, parquet files, shards, a list of path and label; or imagenette, imagewoof (each also -320 or "
    "-160), tiny-imagenet, cifar10 to download."
)
Recipes = Annotated[
    list[str], typer.Argument(metavar="RECIPE|section.key=value...", help="One recipe, and values to replace.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alexnet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def evaluate(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT...", help="Checkpoints or runs; several form an ensemble.")
    ],
    data: Annotated[str | None, typer.Option(help=f"{DATA_HELP} Default: the data of the training.")] = None,
    views: Annotated[
        str | None, typer.Option(help="center, flip or ten_crop (the paper's). Default: the recipe's.")
    ] = None,
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    batch_size: Annotated[int, typer.Option(help="Views per forward pass.", min=1)] = 128,
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option(help="Write the record to this JSON file too.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the error of networks on a data set.

    Every image counts once. Several checkpoints are averaged, as the paper does with its five networks.
    """
    from alexnet.commands.evaluate import evaluate_command

    evaluate_command(
        checkpoints,
        data,
        views=views,
        split=split,
        batch_size=batch_size,
        device=device,
        output=output,
        as_json=json,
        quiet=quiet,
    )


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or a run's folder.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help='Files, folders, URLs, or "-" for standard input (image or paths).'),
    ],
    top: Annotated[int, typer.Option(help="How many guesses per image.", min=1)] = 5,
    views: Annotated[str, typer.Option(help="center, flip or ten_crop.")] = "center",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Name what is in images, with probabilities."""
    from alexnet.commands.predict import predict_command

    failed = predict_command(checkpoint, images, top=top, views=views, device=device, as_json=json)
    if failed:
        raise typer.Exit(2)


@app.command(
    epilog=(
        "Examples:\n\n\b\n"
        "  alexnet doctor                                    this machine\n"
        "  alexnet doctor photos                             a data set\n"
        "  alexnet doctor folder photos optimizer.lr=0.1     a recipe, and whether it fits the data\n"
        "  alexnet doctor transfer photos --init runs/cifar  ... one that begins with a trained network\n"
        "  alexnet doctor runs/photos                        a run\n"
        "  alexnet doctor runs/photos/checkpoints/last.pt other-photos\n\n"
        "Exit code 0: nothing but notes; 1: problems or warnings were found."
    )
)
def doctor(
    things: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="THING...",
            help="Data sets, a recipe with section.key=value, checkpoints, runs. None: the machine.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="A data set; the same as naming it.")] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="A trained network that the recipe (default: transfer) begins with."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Look at every image, not a sample; of a prepared set, compare the checksums."),
    ] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="Of a run whose loss was not finite: repeat its last steps to see where it began."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Find what is wrong with data, a recipe, a checkpoint, a run or the machine.

    Several things together are compared: whether a recipe fits the data, whether a checkpoint does.
    """
    from alexnet.commands.doctor import doctor_command

    if not doctor_command(things or [], data or [], init=init, full=full, replay=replay, as_json=json):
        raise typer.Exit(1)


@app.command(
    epilog=(
        "Examples:\n\n\b\n"
        "  alexnet prepare downloads/ imagenet        ILSVRC2012_img_train.tar, ..._img_val.tar and the devkit\n"
        "  alexnet prepare imagenette-160 nette       downloaded from its official address\n"
        "  alexnet prepare photos photos-256 --format raw\n\n"
        "docs/data.md has all forms that are recognised, and the format that is written."
    )
)
def prepare(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder for the prepared data set.")],
    size: Annotated[
        int | None,
        typer.Option(help="Side of the squares in pixels (default: 256; less for smaller sets).", min=8, max=4096),
    ] = None,
    quality: Annotated[int, typer.Option(help="Of JPEG.", min=1, max=100)] = 95,
    format: Annotated[
        str | None, typer.Option(help="jpeg or raw (uncompressed; the default for CIFAR, jpeg elsewhere).")
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
    json: Json = False,
    quiet: Quiet = False,
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


@app.command()
def info(
    what: Annotated[str, typer.Argument(metavar="MODEL|CHECKPOINT|RUN", help="A variant's name, or a path.")],
    other: Annotated[str | None, typer.Argument(metavar="OTHER", help="A second one: print what differs.")] = None,
    num_classes: Annotated[int, typer.Option(help="Of a variant: outputs of the last layer.", min=1)] = 1000,
    image_size: Annotated[
        int | None, typer.Option(help="Of a variant: side of the input in pixels (default: its own).", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Describe a variant, a checkpoint or a run.

    A variant is shown layer by layer: shape, parameters, multiply-adds, share. Two names: what differs.
    """
    from alexnet.commands.info import info_command

    info_command(what, other, num_classes=num_classes, image_size=image_size, as_json=json)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")], json: Json = False) -> None:
    """Write a run's report.html again."""
    from alexnet.commands.report import report_command

    report_command(run, as_json=json)


@recipes.command("list")
def recipe_list(json: Json = False) -> None:
    """List the recipes, with what each reproduces."""
    from alexnet.commands import recipe

    recipe.list_command(as_json=json)


@recipes.command("show")
def recipe_show(arguments: Recipes, json: Json = False) -> None:
    """Print a recipe with its header and every value, overrides included."""
    from alexnet.commands import recipe

    recipe.show_command(arguments, as_json=json)


@recipes.command("diff")
def recipe_diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A recipe's name, a .toml file or a run's folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    json: Json = False,
) -> None:
    """Print the keys in which two recipes differ."""
    from alexnet.commands import recipe

    recipe.diff_command(first, second, as_json=json)


@recipes.command("validate")
def recipe_validate(arguments: Recipes, json: Json = False) -> None:
    """Check a recipe and overrides without running anything."""
    from alexnet.commands import recipe

    recipe.validate_command(arguments, as_json=json)


def main() -> NoReturn:
    """Run the command in sys.argv and exit: 0 done, 1 a failed run, 2 the person's mistake (one message each)."""
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal's encoding lacks costs no output
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    end_process(_run())


def _run() -> int:
    """Run the command; its exit code, and a message where that is not 0."""
    try:
        app(prog_name="alexnet")
    except SystemExit as end:  # how typer ends, with or without success
        return int(end.code or 0)
    except (UserError, RunError) as error:
        code = 2 if isinstance(error, UserError) else 1
        if error.is_told_elsewhere:
            # torchrun ends the others as soon as one process has failed: the one that tells has to be the first.
            time.sleep(2)
            return code
        return _fail(str(error), code)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(
                f"the disk is full: cannot write {error.filename or 'a file'}. Everything written before is kept; free "
                "some space and give the same command again, a training goes on from its last checkpoint.",
                1,
            )
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP):
            return _fail(f"cannot use {error.filename or 'a path that was given'}: {error.strerror}.", 2)
        raise
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(
            f"out of memory ({str(error).splitlines()[0] if str(error) else 'no details'}). Set a smaller "
            "train.micro_batch_size (without batch norm the result stays the same to rounding), or --batch-size of "
            "evaluate.",
            1,
        )
    return 0


def _fail(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")  # torchrun's: processes of one training share this terminal
    where = "" if rank == "0" else f" on rank {rank}"
    print_lines(*f"error{where}: {message}".split("\n"), stream=sys.stderr)
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text

"""The command line of `alexnet benchmark`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Device, Json, Quiet

benchmarks = typer.Typer(
    help="Measure the speed on this machine, beside what one would otherwise run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Variant = Annotated[str, typer.Option(help="A variant (see `alexnet info`).")]
BatchSize = Annotated[int, typer.Option(help="Images per step.")]
Precision = Annotated[str, typer.Option(help="auto, bfloat16 or float32: of our activations.")]
Baselines = Annotated[
    str | None,
    typer.Option(
        help="Names with commas between, all, or none: textbook, flags, flags-float32, torchvision, "
        "torchvision-compiled, onnxruntime (inference); of ours with one thing otherwise: conv1-direct, "
        "conv1-by-blocks, plain-torch, no-norm. Default: those that make sense on this machine.",
        show_default=False,
    ),
]
Rounds = Annotated[int, typer.Option(help="Blocks measured of each, in turn; the median counts.")]
Threads = Annotated[int | None, typer.Option(help="Threads of torch's kernels. Default: torch's choice.")]
Record = Annotated[Path | None, typer.Option(help="Write the record to this JSON file too.")]


@benchmarks.command("train")
def benchmark_train(
    model: Variant = "as_run",
    batch_size: BatchSize = 128,
    precision: Precision = "auto",
    device: Device = "auto",
    baselines: Baselines = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    output: Record = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure training: input, forward, backward and update, from bytes, beside the baselines."""
    from alexnet.commands.benchmark import benchmark_command

    benchmark_command(
        "train",
        model=model,
        batch_size=batch_size,
        precision=precision,
        device=device,
        baselines=baselines,
        rounds=rounds,
        threads=threads,
        output=output,
        as_json=json,
        quiet=quiet,
    )


@benchmarks.command("inference")
def benchmark_inference(
    model: Variant = "as_run",
    batch_size: BatchSize = 128,
    precision: Precision = "auto",
    device: Device = "auto",
    baselines: Baselines = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    output: Record = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure inference: from bytes to logits, beside the baselines."""
    from alexnet.commands.benchmark import benchmark_command

    benchmark_command(
        "inference",
        model=model,
        batch_size=batch_size,
        precision=precision,
        device=device,
        baselines=baselines,
        rounds=rounds,
        threads=threads,
        output=output,
        as_json=json,
        quiet=quiet,
    )


@benchmarks.command("loader")
def benchmark_loader(
    data: Annotated[
        str | None,
        typer.Option(help="A prepared data set, or a folder with train/ and val/. Default: drawn photographs."),
    ] = None,
    images: Annotated[int, typer.Option(help="Photographs to draw.")] = 512,
    batch_size: BatchSize = 128,
    workers: Annotated[
        int | None, typer.Option(help="Reading threads, of baselines processes. Default: one a core.")
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="Names with commas between, all, or none: pil-originals, dataloader, webdataset, dali."),
    ] = None,
    rounds: Rounds = 5,
    output: Record = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure loading: from files to batches of crops, beside the other ways to load them."""
    from alexnet.commands.benchmark_loader import benchmark_loader_command

    benchmark_loader_command(
        data=data,
        num_images=images,
        batch_size=batch_size,
        num_workers=workers,
        baselines=baselines,
        rounds=rounds,
        output=output,
        as_json=json,
        quiet=quiet,
    )


@benchmarks.command("serve")
def benchmark_serve(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint or a run's folder. Default: --model, untrained.",
            show_default=False,
        ),
    ] = None,
    model: Variant = "as_run",
    clients: Annotated[str, typer.Option(help="How many ask at the same time, with commas between.")] = "1,8,64",
    batch_size: Annotated[int, typer.Option(help="Most images in a pass, with batching.", min=2)] = 32,
    max_wait_ms: Annotated[float, typer.Option(help="As of `alexnet serve`.", min=0)] = 10.0,
    rounds: Annotated[int, typer.Option(help="Blocks measured of each, in turn; the median counts.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of one block.", min=0.1)] = 5.0,
    memory_requests: Annotated[
        int, typer.Option(help="Ask so often afterwards, and look at the memory; 0 leaves it out.", min=0)
    ] = 0,
    output: Record = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the server: images a second and latencies over loopback, with batching and without."""
    from alexnet.commands.benchmark_serve import benchmark_serve_command

    benchmark_serve_command(
        checkpoint,
        model=model,
        clients=clients,
        batch_size=batch_size,
        max_wait_ms=max_wait_ms,
        rounds=rounds,
        seconds=seconds,
        memory_requests=memory_requests,
        output=output,
        as_json=json,
        quiet=quiet,
    )


@benchmarks.command("scaling")
def benchmark_scaling(
    model: Variant = "as_run",
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images, pixels. Default: the smallest.", show_default=False)
    ] = None,
    batch_size: BatchSize = 128,
    precision: Precision = "auto",
    processes: Annotated[int, typer.Option(help="That share a step, with one thread each.", min=2)] = 2,
    rounds: Annotated[int, typer.Option(help="Blocks measured of each, in turn; the median counts.", min=1)] = 5,
    output: Record = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what sharing a step among processes costs on this machine, and writing checkpoints beside it."""
    from alexnet.commands.benchmark_scaling import benchmark_scaling_command

    benchmark_scaling_command(
        model=model,
        image_size=image_size,
        batch_size=batch_size,
        precision=precision,
        processes=processes,
        rounds=rounds,
        output=output,
        as_json=json,
        quiet=quiet,
    )

"""The command line of `alexnet serve`; as in cli.py, nothing heavy is imported at the top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet.commands.options import Device, Json, Quiet

SERVE_EPILOG = (
    "Examples:\n\n\b\n"
    "  alexnet serve runs/photos                         the page at http://127.0.0.1:8000/\n"
    "  alexnet serve runs/photos --data photos           with the nearest of your images\n"
    "  alexnet serve runs/first runs/second --open       two networks side by side, in your browser\n"
    "  alexnet serve runs/photos --host 0.0.0.0          for a telephone in the same network, too\n"
    "  curl --data-binary @cat.jpg http://127.0.0.1:8000/api/predict\n\n"
    "docs/serving.md has the HTTP API and what to know before others can reach it."
)

AllowHosts = Annotated[
    list[str] | None,
    typer.Option(help="A further name under which this machine may be asked, as behind a proxy. Repeatable."),
]
Waiting = Annotated[
    float, typer.Option(help="How long a pass waits for images that are on their way.", min=0, max=10_000)
]
Room = Annotated[int, typer.Option(help="Requests with an image at the same time; more get a 503.", min=1, max=100_000)]


def serve(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or a run's folder.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="CHECKPOINT2", help="A second one, to compare.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set, a folder of images, or a file of `alexnet features`: the nearest of it are shown."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    allow_host: AllowHosts = None,
    batch_size: Annotated[int, typer.Option(help="Most images in one pass; 1 is no batching.", min=1, max=4096)] = 32,
    max_wait_ms: Waiting = 10.0,
    max_requests: Room = 128,
    max_upload_mb: Annotated[float, typer.Option(help="Largest image file.", min=0.001, max=2000)] = 20.0,
    max_megapixels: Annotated[float, typer.Option(help="Largest image.", min=0.001, max=1000)] = 64.0,
    decode_seconds: Annotated[float, typer.Option(help="Most for decoding an image.", min=0.1, max=600)] = 10.0,
    request_seconds: Annotated[float, typer.Option(help="Most for a whole request.", min=1, max=3600)] = 60.0,
    decoders: Annotated[int, typer.Option(help="Processes that decode images.", min=1, max=256)] = 2,
    views: Annotated[str, typer.Option(help="center, flip or ten_crop.")] = "center",
    device: Device = "auto",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve a web page that shows what a network sees, and an HTTP API.

    Nothing that is uploaded is kept, and the page loads nothing from elsewhere. Ctrl-C or SIGTERM answers what was
    asked before, and ends. With --json the one object is printed as soon as the server is ready.
    """
    from alexnet.commands.serve import serve_command
    from alexnet.serve.settings import Settings

    settings = Settings(
        batch_size=batch_size,
        max_wait_ms=max_wait_ms,
        max_requests=max_requests,
        max_upload_bytes=int(max_upload_mb * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        decode_seconds=decode_seconds,
        request_seconds=request_seconds,
        num_decoders=decoders,
        views=views,
    )
    serve_command(
        [checkpoint] if other is None else [checkpoint, other],
        settings,
        data=data,
        host=host,
        port=port,
        allow_hosts=allow_host or [],
        device=device,
        open_page=open_page,
        as_json=json,
        quiet=quiet,
    )

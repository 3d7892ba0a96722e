"""`alexnet serve`: a web page on one or two checkpoints, and the HTTP API behind it."""

from __future__ import annotations

import logging
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from alexnet.commands.output import print_json
from alexnet.data.sources import Source, open_source
from alexnet.errors import UserError
from alexnet.evaluation.subjects import recipe_of
from alexnet.evaluation.views import VIEW_NAMES
from alexnet.reporting.console import printable
from alexnet.serve.settings import Settings


def serve_command(
    checkpoints: Sequence[Path],
    settings: Settings,
    *,
    data: str | None,
    host: str,
    port: int,
    allow_hosts: Sequence[str],
    device: str,
    open_page: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Serve until the process is told to stop. Raises UserError for what the person can mend, before it begins."""
    _check_installed()
    from alexnet.serve.examples import examples_of_data, examples_of_run
    from alexnet.serve.nearest import Neighbourhood
    from alexnet.serve.networks import load_networks, run_folder
    from alexnet.serve.server import PageServer, addresses, is_for_this_machine, open_socket
    from alexnet.serve.service import Service

    if settings.views not in VIEW_NAMES:
        raise UserError(f"--views {settings.views} is none that is known; it is one of {', '.join(VIEW_NAMES)}.")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def tell(message: str) -> None:
        if not quiet:
            print(printable(message), file=sys.stderr, flush=True)

    with closing(open_socket(host, port)) as opened:
        networks = load_networks(checkpoints, device=device, views=settings.views)
        source: Source | None = None
        neighbourhood = None
        if data is not None:
            config = recipe_of(networks[0].checkpoint).data
            source = open_source(data, config)
            neighbourhood = Neighbourhood(source, config.max_unreadable)
        examples = examples_of_run(run_folder(networks[0].file)) if source is None else examples_of_data(source)
        service = Service(networks, settings, examples=examples, neighbourhood=neighbourhood, tell=tell)
        urls = addresses(opened, host)

        def announce() -> None:
            for network in networks:
                tell(f"{network.id}: {network.title}, {network.checkpoint.architecture.name}, "
                     f"{network.checkpoint.num_classes} classes, on {network.predictor.device}")  # fmt: skip
            if not is_for_this_machine(host):
                tell("Whoever can reach this machine can use the page (docs/serving.md).")
            tell(f"The page is at {'  and  '.join(urls)}   Ctrl-C ends it.")
            if as_json:
                print_json({"url": urls[0], "urls": urls, "networks": [network.title for network in networks]})
                sys.stdout.flush()
            if open_page:
                webbrowser.open(urls[0])

        hosts = list(allow_hosts) if is_for_this_machine(host) else None
        PageServer(service, opened, allowed_hosts=hosts, on_ready=announce).serve_until_stopped()
    tell("All requests are answered; the server has ended.")


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"alexnet serve needs the package {error.name}; install it with: pip install 'alexnet[serve]'"
        ) from None

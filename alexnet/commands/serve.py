"""`alexnet serve`: a web page on one or two checkpoints, and the HTTP API behind it."""

from __future__ import annotations

import logging
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alexnet.commands.neighbours import check_same_network
from alexnet.commands.output import network_facts, print_json
from alexnet.errors import UserError
from alexnet.evaluation.feature_files import is_table, read_table
from alexnet.evaluation.image_list import open_images
from alexnet.evaluation.subjects import data_config_of, describe
from alexnet.evaluation.views import VIEW_NAMES
from alexnet.runtime.text import print_lines, printable_lines
from alexnet.serve.settings import Settings
from alexnet.training.checkpoint_files import run_folder

if TYPE_CHECKING:
    from alexnet.serve.examples import Example
    from alexnet.serve.nearest import Neighbourhood
    from alexnet.training.checkpoint import Checkpoint


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
    from alexnet.serve.examples import examples_of_run
    from alexnet.serve.networks import load_networks
    from alexnet.serve.server import LogThrottle, PageServer, addresses, is_for_this_machine, open_socket
    from alexnet.serve.service import Service

    if settings.views not in VIEW_NAMES:
        raise UserError(f"--views {settings.views} is none that is known; it is one of {', '.join(VIEW_NAMES)}.")
    log = logging.StreamHandler(sys.stderr)
    log.addFilter(LogThrottle())
    log.setFormatter(_LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[log])

    def tell(message: str) -> None:
        if not quiet:
            print_lines(message, stream=sys.stderr)

    with closing(open_socket(host, port)) as opened:
        networks = load_networks(checkpoints, device=device, views=settings.views)
        neighbourhood, examples = None, examples_of_run(run_folder(networks[0].file))
        if data is not None:
            neighbourhood, examples = _open_data(data, [network.checkpoint for network in networks])
        service = Service(networks, settings, examples=examples, neighbourhood=neighbourhood, tell=tell)
        urls = addresses(opened, host)

        def announce() -> None:
            for network in networks:
                tell(f"{network.id}: {network.title}, {describe(network.checkpoint)}, on {network.predictor.device}")
            if not is_for_this_machine(host):
                tell("Whoever can reach this machine can use the page (docs/serving.md).")
            tell(f"The page is at {'  and  '.join(urls)}   Ctrl-C ends it.")
            if as_json:
                facts = [network_facts(network.file, network.checkpoint) for network in networks]
                titles = [network.title for network in networks]
                print_json({"url": urls[0], "urls": urls, "networks": titles, "checkpoints": facts})
                sys.stdout.flush()
            if open_page:
                webbrowser.open(urls[0])

        hosts = None if not allow_hosts and not is_for_this_machine(host) else [*allow_hosts, *map(_name_in, urls)]
        PageServer(service, opened, allowed_hosts=hosts, on_ready=announce).serve_until_stopped()
    tell("All requests are answered; the server has ended.")


class _LogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _name_in(url: str) -> str:
    return urlsplit(url).hostname or ""


def _open_data(data: str, checkpoints: Sequence[Checkpoint]) -> tuple[Neighbourhood, list[Example]]:
    """The images of a data set, of a folder, or of a file that `alexnet features` wrote; and some to begin with.

    Where it has a part for training, nearest are looked for in that (paper, Figure 4).
    """
    from alexnet.serve.examples import examples_of_images
    from alexnet.serve.nearest import Neighbourhood

    table, given, path = None, [data], Path(data)
    if is_table(path):
        if len(checkpoints) > 1:
            raise UserError(f"{data} has the features of one network; to compare two, give the data set itself.")
        table = read_table(path)
        check_same_network(table, path, checkpoints[0])
        given = table.about.get("images")
        if not given:
            raise UserError(f"{data} does not say where its images are; give the data set itself.")
    images = open_images(given, data_config_of(checkpoints[0]))
    training = [i for i, split in enumerate(images.splits) if split == "train"]
    among = images.take(training) if table is None and training else images
    name = Path(data).name or data
    return Neighbourhood(name, among, table), examples_of_images(images)


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"alexnet serve needs the package {error.name}; install it with: pip install 'alexnet[serve]'"
        ) from None

"""From an application to a running server: the socket, slow connections, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet.errors import RunError, UserError
from alexnet.serve.app import create_app
from alexnet.serve.service import Service

HEAD_SECONDS = 15.0
"""A connection that has not sent the whole head of a request by then is closed."""


class _Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, but for heads that take too long, and errors that are JSON here too."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # what came is no whole head
            self._await_head()
        else:
            self._cancel_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        # Not anew with every byte: uvicorn's own limit, for idle connections, ends with the first of them.
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"error": "This is not a request of HTTP/1.1."}).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError where the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(2048)
        except BaseException:
            opened.close()
            raise
    except socket.gaierror:
        raise UserError(f"--host {host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all.") from None
    except OverflowError:
        raise UserError(f"--port {port} cannot be; it is from 0 to 65535, and 0 takes a free one.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"Port {port} is in use; give another with --port, or --port 0 for a free one.") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"--host {host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all."
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(f"Port {port} may not be used by you; give one above 1023 with --port.") from None
        raise
    return opened


def is_for_this_machine(host: str) -> bool:
    """Whether nobody else can reach a server at that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def addresses(opened: socket.socket, host: str) -> list[str]:
    """Where the page is: for this machine first, then for others where they can reach it."""
    port = opened.getsockname()[1]
    if is_for_this_machine(host):
        return [f"http://{_in_address(host)}:{port}/"]
    found = [f"http://127.0.0.1:{port}/"] if host in ("0.0.0.0", "::") else [f"http://{_in_address(host)}:{port}/"]
    own = _own_address() if host in ("0.0.0.0", "::") else None
    return found if own is None else [*found, f"http://{own}:{port}/"]


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_address() -> str | None:
    """This machine's address in its network; None where it is in none. Nothing is sent for this."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737): only the route is asked for
            return probe.getsockname()[0]
        except OSError:
            return None


class PageServer(uvicorn.Server):
    """A server of one service on an open socket."""

    def __init__(
        self,
        service: Service,
        opened: socket.socket,
        *,
        allowed_hosts: Sequence[str] | None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        config: dict[str, Any] = {
            "http": _Protocol,
            "ws": "none",
            "lifespan": "on",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            # Whoever is being answered gets the answer, if it comes in time.
            "timeout_graceful_shutdown": int(service.settings.request_seconds) + 5,
        }
        super().__init__(uvicorn.Config(create_app(service, allowed_hosts=allowed_hosts), **config))
        self._socket = opened
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and tells when it is through."""
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def serve_until_stopped(self) -> None:
        """Serve until SIGINT or SIGTERM, then answer what was asked before, and return.

        A second SIGINT does not wait for answers. Raises RunError where it cannot start.
        """
        ours = [(number, signal.signal(number, lambda *_: None)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            # uvicorn raises the signal again when all is done; then it meets the handlers above.
            self.run(sockets=[self._socket])
        except SystemExit:
            raise RunError("The server could not start; what went wrong stands above.") from None
        finally:
            for number, before in ours:
                signal.signal(number, before)
            self._socket.close()

"""From an application to a running server: the socket, slow connections, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import json
import logging
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet.errors import RunError, UserError
from alexnet.serve.app import create_app
from alexnet.serve.service import Service

LOG = logging.getLogger("alexnet.serve")

HEAD_SECONDS = 15.0
"""A connection that has not sent the whole head of a request by then is closed."""
ANSWER_SECONDS = 30.0
"""A client that has not read its whole answer by then is disconnected."""
LAST_ANSWER_SECONDS = 5.0
"""The same limit while the server stops."""
MAX_UNREAD_BYTES = 128_000_000
"""Limit of all unread answers together; above it, the connections that have waited longest are closed."""
MAX_CONNECTIONS = 1024
"""Limit of open connections; fewer if the process may not open that many files (`connection_limit`)."""
_RESERVED_FILES = 256
"""Files that connections leave free: accepted sockets that are not counted yet, checkpoints, shards, libraries."""
_ACCEPT_AT_ONCE = 32
"""Connections that asyncio accepts before it runs anything else; more could use up the files before one is closed."""
_BACKLOG = 2048
_SEND_BUFFER_BYTES = 65_536
_PIECE_BYTES = 65_536
_CONNECTION = "alexnet.connection"


def connection_limit(num_decoders: int) -> int:
    """Return how many connections may be open at once, below the number of files that this process may open."""
    try:
        import resource
    except ImportError:  # not Unix
        return MAX_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, files - min(_RESERVED_FILES + 4 * num_decoders, files // 2))


class LogThrottle(logging.Filter):
    """Passes each kind of log line a few times per period, so that strangers cannot fill a disk with log lines."""

    def __init__(self, lines: int = 5, seconds: float = 60.0) -> None:
        super().__init__()
        self._lines, self._seconds = lines, seconds
        self._kinds: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record. The first one of the next period reports how many were left out."""
        now = time.monotonic()
        kind = (record.name, record.msg, record.exc_info[0] if record.exc_info else None)
        since, count = self._kinds.get(kind, (now, 0))
        if now - since >= self._seconds:
            if count > self._lines:
                record.msg = f"{record.msg} ({count - self._lines:,} more such lines were left out)"
            since, count = now, 0
        if len(self._kinds) >= 1000 and kind not in self._kinds:
            self._kinds.clear()
        self._kinds[kind] = since, count + 1
        return count < self._lines


class _Connections(NamedTuple):
    """What the connections of one server share."""

    limit: int
    idle: OrderedDict[_Protocol, None]
    """Those without a request in progress, the longest idle first."""
    unread: OrderedDict[_Protocol, None]
    """Those whose client has not read all that was sent, the longest waiting first."""


class _Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with limits on slow heads, on unread answers and on the number of connections."""

    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None
    _is_stopping = False
    unread_bytes = 0
    """What the client has still to read of its answer, the buffers of the system left out."""

    def __init__(self, *args: Any, shared: _Connections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shared = shared

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause_writing means: there are unread bytes; resume_writing: none
        self._await_head()
        if len(self.connections) > self._shared.limit:
            # Idle connections never lock out a client with a request: the longest idle one makes room.
            oldest = next(iter(self._shared.idle or self._shared.unread), self)
            oldest.drop()
            LOG.warning("closed a connection: more than %d are open", self._shared.limit)
        if self in self.connections:
            self._shared.idle[self] = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._awaits_request():  # what came is no whole head
            self._await_head()
        else:
            self._cancel_head_timer()

    def handle_events(self) -> None:
        super().handle_events()
        if self._awaits_request():
            return
        self._shared.idle.pop(self, None)
        self.scope[_CONNECTION] = self  # pyright: ignore[reportGeneralTypeIssues]
        # A proxy may take the other one of the two lengths, and what follows for a second request (RFC 9112, 6.1).
        lengths = {name for name, _ in self.headers} & {b"content-length", b"transfer-encoding"}
        if len(lengths) == 2 and CLOSE_HEADER not in self.headers:
            self.headers.append(CLOSE_HEADER)

    def on_response_complete(self) -> None:
        self._shared.idle[self] = None
        if not self.flow.write_paused:
            self._end_answer()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection at once, whatever is unread."""
        self._forget()
        self.connections.discard(self)
        self.transport.abort()

    def _forget(self) -> None:
        self._cancel_head_timer()
        self._end_answer()
        self._shared.idle.pop(self, None)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._answer_timer is None and not self.transport.is_closing():
            self._limit_answer()
            self._shared.unread[self] = None
        unread = sum(one.unread_bytes for one in self._shared.unread)
        while unread > MAX_UNREAD_BYTES:
            oldest = next(iter(self._shared.unread))
            unread -= oldest.unread_bytes
            oldest.drop()

    def resume_writing(self) -> None:
        if self._awaits_request():  # otherwise more of the answer follows, within the same limit
            self._end_answer()
        super().resume_writing()

    def shutdown(self) -> None:
        self._is_stopping = True
        if self._answer_timer is not None:
            self._limit_answer()
        super().shutdown()

    def _awaits_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _limit_answer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
        seconds = LAST_ANSWER_SECONDS if self._is_stopping else ANSWER_SECONDS
        self._answer_timer = self.loop.call_later(seconds, self.transport.abort)

    def _end_answer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
        self._shared.unread.pop(self, None)

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


def _in_pieces(app: ASGIApp) -> ASGIApp:
    """Hand answers to uvicorn piece by piece: a connection buffers one piece, and waits until the client reads it."""

    async def paced(scope: Scope, receive: Receive, send: Send) -> None:
        connection: _Protocol | None = scope.get(_CONNECTION)

        async def send_pieces(message: Message) -> None:
            body = message.get("body", b"")
            for start in range(0, len(body) - _PIECE_BYTES, _PIECE_BYTES):
                if connection is not None:
                    connection.unread_bytes = len(body) - start
                await send({**message, "body": body[start : start + _PIECE_BYTES], "more_body": True})
            if body:
                message = {**message, "body": body[(len(body) - 1) // _PIECE_BYTES * _PIECE_BYTES :]}
            if connection is not None:
                connection.unread_bytes = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_pieces)

    return paced


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError where the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it. Unread answers then lie in this process, which limits them, not in the kernel.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            opened.bind(address)
            opened.listen(_BACKLOG)
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
        limit = connection_limit(service.settings.num_decoders)
        shared = _Connections(limit, idle=OrderedDict(), unread=OrderedDict())
        config: dict[str, Any] = {
            "http": functools.partial(_Protocol, shared=shared),
            "backlog": _ACCEPT_AT_ONCE,
            "ws": "none",
            "lifespan": "on",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            # Whoever is being answered gets the answer, if it comes in time.
            "timeout_graceful_shutdown": int(service.settings.request_seconds) + 5,
        }
        super().__init__(uvicorn.Config(_in_pieces(create_app(service, allowed_hosts=allowed_hosts)), **config))
        self._socket = opened
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and tells when it is through."""
        await super().startup(sockets)
        self._socket.listen(_BACKLOG)  # the queue of the kernel; asyncio has set it to _ACCEPT_AT_ONCE
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

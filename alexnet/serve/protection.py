"""Around every request: who may ask, what a browser may do with the answers, what is counted, how errors are told."""

from __future__ import annotations

import http
import ipaddress
import logging
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alexnet.errors import UserError
from alexnet.runtime.text import printable
from alexnet.serve.metrics import Metrics
from alexnet.serve.policy import content_security_policy
from alexnet.serve.refusals import Refused

LOG = logging.getLogger("alexnet.serve")

POLICY = content_security_policy(frame_ancestors="'none'")
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


class Protection:
    """Middleware: checks the Host header, adds headers to every answer, and counts.

    allowed_hosts: a page of another site can have its own name resolve to this machine, and then ask as if it were
    ours (DNS rebinding); so a server for this machine only answers to the names of this machine. None allows any.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, allowed_hosts: Sequence[str] | None) -> None:
        self._app = app
        self._metrics = metrics
        self._allowed_hosts = None if allowed_hosts is None else {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, method = 500, scope["method"]

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        host = _host_name(Headers(scope=scope).get("host", ""))
        try:
            if self._allowed_hosts is not None and host not in self._allowed_hosts and not _is_loopback(host):
                await _foreign_host(host)(scope, receive, send_guarded)
            else:
                # HEAD is GET without the body of the answer, which uvicorn leaves out.
                scope = {**scope, "method": "GET" if method == "HEAD" else method}
                await self._app(scope, receive, send_guarded)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            method = method if method in ("GET", "HEAD", "POST") else "other"
            self._metrics.requests.add(method, route, str(status))
            self._metrics.request_seconds.observe(time.perf_counter() - started)


def _host_name(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _foreign_host(host: str) -> JSONResponse:
    sentence = (
        "This server answers to the names of its own machine only, and was asked by another name. "
        "Start it with --allow-host NAME, or with --host for other machines."
    )
    LOG.warning("refused a request for the host %r", host[:100])
    return _error(sentence, 403)


def _error(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": printable(sentence)}, status_code=status, headers=headers)


def install_error_answers(app: FastAPI) -> None:
    """Whatever goes wrong is answered with {"error": a sentence}; the log has what is ours to mend."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
        return _error(str(error), error.status, headers)

    @app.exception_handler(UserError)
    async def impossible(request: Request, error: UserError) -> JSONResponse:
        return _error(str(error), 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = first["loc"][-1] if first["loc"] else "the request"
        return _error(f"The value of {name!r} cannot be used: {first['msg']}.", 422)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        sentence = {
            404: "There is nothing at this address.",
            405: "This address cannot be asked in that way (wrong method).",
        }.get(error.status_code, f"{http.HTTPStatus(error.status_code).phrase}.")
        return _error(sentence, error.status_code, error.headers)

    # Afterwards the error goes on to uvicorn, which writes it to the log.
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return _error("The server failed at this request; its log says more.", 500)

"""Reading files over the network: whole, or a range of bytes.

HTTP is spoken here, with one open connection a thread: fsspec's needs aiohttp, and sends every request through one
event loop. Everything else (s3://, gs://, ...) is fsspec's, which comes with torch; a store's own package is an extra.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from alexnet.errors import UserError

_CHUNK_BYTES = 2**20
_TIMEOUT_SECONDS = 30.0
_PAUSES_SECONDS = (0.2, 1.0, 4.0)
_MOST_REDIRECTS = 5
_TEMPORARY = (408, 429, 500, 502, 503, 504)

Result = TypeVar("Result")


class RemoteError(Exception):
    """A file that cannot be read; str() says why, with its address."""


class _TemporaryError(Exception):
    """What may be gone in a moment."""


class RemoteFiles(Protocol):
    """The files below one address; all methods may be called from several threads, and raise RemoteError."""

    has_ranges: bool
    """Whether parts can be read."""

    def read(self, name: str, start: int, size: int) -> bytes:
        """Bytes start, ..., start + size - 1 of a file."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """A whole file, in pieces; broken off, it is to be read again from its beginning."""
        ...


def open_remote_files(address: str) -> RemoteFiles:
    """The files below an address, such as https://host/folder or s3://bucket/folder."""
    if address.startswith(("http://", "https://")):
        return HttpFiles(address)
    return FsspecFiles(address)


def read_whole(files: RemoteFiles, name: str) -> bytes:
    """All of a file."""
    return retry(lambda: b"".join(files.chunks(name)))


def retry(attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns, after a few tries where it failed for a reason that may pass."""
    for pause in (*_PAUSES_SECONDS, None):
        try:
            return attempt()
        except _TemporaryError as error:
            if pause is None:
                raise RemoteError(str(error)) from None
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


class _Connections(dict[tuple[str, str], http.client.HTTPConnection]):
    """The open connections of a thread, closed when the thread ends or nobody needs them."""

    def __del__(self) -> None:
        for connection in self.values():
            connection.close()


class HttpFiles:
    """Files of a web server."""

    def __init__(self, address: str) -> None:
        """Raises UserError for what is no address."""
        try:
            parts = urllib.parse.urlsplit(address.rstrip("/"))
            if not parts.hostname or parts.port == 0:
                raise ValueError("it names no host")
        except ValueError as error:
            raise UserError(f"{address} is no address: {error}.") from None
        # A person may write it with spaces and umlauts.
        self.address = parts._replace(path=urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~")).geturl()
        self.has_ranges = True
        self._local = threading.local()

    def read(self, name: str, start: int, size: int) -> bytes:
        """Bytes start, ..., start + size - 1 of a file."""
        return retry(lambda: self._read_range(name, start, size)) if size else b""

    def chunks(self, name: str) -> Iterator[bytes]:
        """A whole file, in pieces."""
        url = self._url(name)
        with _telling(url):
            response, connection = self._request(url, {})
            expected = response.length
            done = 0
            try:
                while chunk := response.read(_CHUNK_BYTES):
                    done += len(chunk)
                    yield chunk
            finally:
                if done != expected:  # what is still to come of it would be taken for the next answer
                    connection.close()
        if expected is not None and done != expected:
            raise _TemporaryError(f"{url}: the connection broke after {done} of {expected} bytes")

    def _read_range(self, name: str, start: int, size: int) -> bytes:
        url = self._url(name)
        with _telling(url):
            response, connection = self._request(url, {"Range": f"bytes={start}-{start + size - 1}"})
            if response.status != http.client.PARTIAL_CONTENT:
                connection.close()
                self.has_ranges = False
                raise RemoteError(f"{url}: the server sends whole files only")
            data = response.read()
        if len(data) != size:
            raise _TemporaryError(f"{url}: {len(data)} bytes came where {size} were asked for")
        return data

    def _url(self, name: str) -> str:
        return f"{self.address}/{urllib.parse.quote(name)}"

    def _request(
        self, url: str, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """The response with its body still to be read, after redirections."""
        for _ in range(_MOST_REDIRECTS + 1):
            parts = urllib.parse.urlsplit(url)
            host = parts.netloc.rpartition("@")[2]
            connection, path = self._connection(parts, host)
            is_used = connection.sock is not None
            try:
                response = _get(connection, path, host, headers)
            except socket.gaierror as error:
                if error.errno == socket.EAI_AGAIN:
                    raise
                raise RemoteError(f"{url}: {_reason(error)}") from None
            except (http.client.RemoteDisconnected, ConnectionError):
                if not is_used:
                    raise
                # Servers close connections that were idle for long.
                response = _get(connection, path, host, headers)
            if response.status in (http.client.OK, http.client.PARTIAL_CONTENT):
                return response, connection
            response.read()
            location = response.getheader("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                url = urllib.parse.urljoin(url, location)
                continue
            message = f"{url}: the server answers {response.status} {response.reason}"
            raise _TemporaryError(message) if response.status in _TEMPORARY else RemoteError(message)
        raise RemoteError(f"{url}: too many redirections")

    def _connection(self, parts: urllib.parse.SplitResult, host: str) -> tuple[http.client.HTTPConnection, str]:
        """This thread's connection to a host, and the path to ask for."""
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
        open_ones = self._local.__dict__.setdefault("connections", _Connections())
        connection = open_ones.get((parts.scheme, host))
        is_tls = parts.scheme == "https"
        if connection is None:
            kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
            through = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc if proxy else host
            connection = kind(through, timeout=_TIMEOUT_SECONDS)
            if proxy and is_tls:
                connection.set_tunnel(host)
            open_ones[parts.scheme, host] = connection
        return connection, f"{parts.scheme}://{host}{path}" if proxy and not is_tls else path


@contextlib.contextmanager
def _telling(url: str) -> Iterator[None]:
    """What goes wrong with a connection in this module's terms."""
    try:
        yield
    except (http.client.HTTPException, OSError) as error:
        raise _TemporaryError(f"{url}: {_reason(error)}") from None
    except ValueError as error:  # a name that cannot be a host's, a redirection to what is no address
        raise RemoteError(f"{url}: {_reason(error)}") from None


def _get(
    connection: http.client.HTTPConnection, path: str, host: str, headers: dict[str, str]
) -> http.client.HTTPResponse:
    try:
        connection.request("GET", path, headers={"User-Agent": "alexnet", "Host": host, **headers})
        return connection.getresponse()
    except BaseException:
        connection.close()  # it is opened again by the next request
        raise


class FsspecFiles:
    """Files of anything that fsspec knows."""

    def __init__(self, address: str) -> None:
        """Raises UserError when fsspec has nothing for such addresses, or lacks a package for it."""
        self.address = address.rstrip("/")
        self.has_ranges = True
        scheme = address.partition("://")[0]
        try:
            import fsspec

            self._system, self._root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            extra = "pip install 'alexnet[s3]'" if scheme == "s3" else "install it"
            raise UserError(f"{address} needs a package that is not installed ({error}); {extra}.") from None
        except ValueError as error:
            raise UserError(f"{address} cannot be read: {error}.") from None

    def read(self, name: str, start: int, size: int) -> bytes:
        """Bytes start, ..., start + size - 1 of a file."""
        data = retry(lambda: self._call(name, self._system.cat_file, start=start, end=start + size)) if size else b""
        if len(data) != size:
            raise RemoteError(f"{self.address}/{name}: it ends before byte {start + size}")
        return data

    def chunks(self, name: str) -> Iterator[bytes]:
        """A whole file, in pieces."""
        with self._call(name, self._system.open, mode="rb", cache_type="none") as file:
            while chunk := self._call(name, lambda _: file.read(16 * _CHUNK_BYTES)):
                yield chunk

    def _call(self, name: str, function: Callable[..., Any], **options: Any) -> Any:
        try:
            return function(f"{self._root}/{name}", **options)
        except FileNotFoundError:
            raise RemoteError(f"{self.address}/{name} does not exist") from None
        except PermissionError as error:
            raise RemoteError(f"{self.address}/{name}: {_reason(error)}") from None
        except Exception as error:  # each store has errors of its own
            raise _TemporaryError(f"{self.address}/{name}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    message = str(error).strip().splitlines()
    return message[0] if message else type(error).__name__

"""Request bodies to the bytes of one image file: in memory only, within limits of size and time.

Frameworks put large uploads into temporary files; here nothing that is sent is ever written to the disk.
"""

from __future__ import annotations

import asyncio

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from alexnet.serve.batching import Visit
from alexnet.serve.refusals import Refused

FIELD = "image"
_FORM_OVERHEAD_BYTES = 65_536
"""What a form may have around its image: boundaries, headers, other small fields."""
_MAX_PARTS = 20
_DRAIN_BYTES = 64_000_000
_DRAIN_SECONDS = 5.0
"""Of a body that is refused so much is still read, so that the sender gets to see the answer."""


async def read_body(request: Request, visit: Visit, max_bytes: int) -> bytes:
    """The body of a request, at most `max_bytes` and a form around it. Raises Refused (400, 413, 503)."""
    limit = max_bytes + _FORM_OVERHEAD_BYTES
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        await _drain(request)
        raise _too_large(max_bytes)
    chunks = []
    try:
        async for chunk in request.stream():
            if visit.num_bytes + len(chunk) > limit:
                await _drain(request)
                raise _too_large(max_bytes)
            visit.hold(len(chunk))
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refused(400, "The connection was closed before the whole image had arrived.") from None
    return b"".join(chunks)


async def _drain(request: Request) -> None:
    """Read on for a little while, and keep nothing."""
    read = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while read < _DRAIN_BYTES:
                message = await request.receive()
                read += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


def image_in(body: bytes, content_type: str, max_bytes: int) -> bytes:
    """The image file in a body: the body itself, or the field `image` of a form.

    Raises Refused (400, 413) with what is wrong with the form.
    """
    kind, options = parse_options_header(content_type)
    image = body
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise Refused(400, "The form has no boundary in its Content-Type, so that its fields cannot be told apart.")
        image = _field_of(body, boundary)
    if len(image) > max_bytes:
        raise _too_large(max_bytes)
    return image


class _Form:
    """Keeps the data of the first field named `image`; the names of files are never used."""

    def __init__(self) -> None:
        self.num_parts = 0
        self.ended = False
        self.image: bytearray | None = None
        self._header = self._value = b""
        self._is_wanted = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: setattr(self, "_header", self._header + data[start:end]),
            "on_header_value": lambda data, start, end: setattr(self, "_value", self._value + data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": self._keep,
            "on_end": lambda: setattr(self, "ended", True),
        }

    def _begin(self) -> None:
        self.num_parts += 1
        if self.num_parts > _MAX_PARTS:
            raise Refused(400, f"The form has more than {_MAX_PARTS} fields; send one, named {FIELD}.")
        self._is_wanted = False

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if options.get(b"name") == FIELD.encode():
                if self.image is not None:
                    raise Refused(400, f"The form has several fields named {FIELD}; send one image a request.")
                self._is_wanted, self.image = True, bytearray()
        self._header = self._value = b""

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted and self.image is not None:
            self.image += data[start:end]


def _field_of(body: bytes, boundary: bytes) -> bytes:
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise Refused(400, "The form is damaged: it does not follow the rules of multipart/form-data.") from None
    if form.image is None:
        raise Refused(400, f"The form has no field named {FIELD}; send the file under that name.")
    if not form.ended:
        raise Refused(400, "The form is cut off: its last boundary is missing.")
    return bytes(form.image)


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, f"The image is larger than {max_bytes / 1e6:g} MB, which is the most that is taken here.")

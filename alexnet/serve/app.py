"""The HTTP API and the page, on a `Service`. docs/serving.md describes it for people, /openapi.json for machines."""

from __future__ import annotations

import asyncio
import io
import mimetypes
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from PIL import Image
from starlette.staticfiles import StaticFiles

from alexnet import _version
from alexnet.serve import answers, cards
from alexnet.serve.encoding import png_of
from alexnet.serve.protection import Protection, install_error_answers
from alexnet.serve.refusals import Refused
from alexnet.serve.service import Picture, Service
from alexnet.serve.uploads import read_body

PAGE = Path(__file__).parent / "page"
PICTURE_SIZE = 256
"""Side of the pictures of a data set, pixels."""

NetworkId = Annotated[str, Query(description="Which network: a, or b where there are two.")]
Top = Annotated[int, Query(ge=1, le=1000, description="How many guesses.")]
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An image file: as the body itself, or as the field `image` of a form.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": answers.Error, "description": "The request cannot be understood."},
    404: {"model": answers.Error, "description": "There is no such network, class, layer or picture."},
    408: {"model": answers.Error, "description": "The upload took too long."},
    413: {"model": answers.Error, "description": "The file is too large."},
    415: {"model": answers.Error, "description": "This is not an image, or of an unknown format."},
    422: {"model": answers.Error, "description": "The image, or a value in the address, cannot be used."},
    500: {"model": answers.Error, "description": "The server failed; its log says why."},
    503: {"model": answers.Error, "description": "The server is busy, or not ready. Retry-After says when to try."},
}


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}


_IMAGE: dict[str, Any] = {"tags": ["images"], "openapi_extra": _UPLOAD, "responses": _REFUSALS}


def create_app(service: Service, *, allowed_hosts: Sequence[str] | None = None) -> FastAPI:
    """The application; its lifespan is that of the service.

    allowed_hosts: names under which browsers may ask, None for any (see `Protection`).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(
        title="alexnet",
        summary="What a trained network says of an image, and what it looks at.",
        version=_version.__version__,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    install_error_answers(app)
    app.add_middleware(Protection, metrics=service.metrics, allowed_hosts=allowed_hosts)
    _add_state(app, service)
    _add_guesses(app, service)
    _add_insights(app, service)
    _add_pictures(app, service)
    _add_page(app)
    return app


def _add_page(app: FastAPI) -> None:
    mimetypes.add_type("text/javascript", ".js")  # some systems say otherwise, and browsers refuse such modules
    files = StaticFiles(directory=PAGE)

    @app.get("/", include_in_schema=False)
    @app.get("/{name}", include_in_schema=False)
    async def page(request: Request, name: str = "index.html") -> Response:
        return await files.get_response(name, request.scope)


async def _answer_upload(service: Service, request: Request, answer: Callable[[Picture], Awaitable[Any]]) -> Any:
    """Let a request in, read and decode its image, and answer; all of it within the limits."""
    with service.door.enter() as visit:
        received = False
        try:
            async with asyncio.timeout(service.settings.request_seconds):
                body = await read_body(request, visit, service.settings.max_upload_bytes)
                received = True
                picture = await service.open(body, request.headers.get("content-type", ""))
                del body
                visit.release()
                if await request.is_disconnected():
                    raise Refused(400, "The connection was closed before the answer.")  # nobody will read this
                return await answer(picture)
        except TimeoutError:
            seconds = f"{service.settings.request_seconds:g} s"
            if not received:
                raise Refused(408, f"The image did not arrive within {seconds}.") from None
            raise Refused(503, f"There was no answer within {seconds}: the server is busy.", retry_seconds=5) from None


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", tags=["state"])
    async def live() -> answers.Health:
        """Whether the process answers at all."""
        return answers.Health(status="live")

    @app.get("/health/ready", tags=["state"], responses=_only(503))
    async def ready() -> answers.Health:
        """Whether requests can be answered: the networks are loaded, and the server is not being stopped."""
        if not service.is_ready:
            raise Refused(503, "The server is starting or being stopped.", retry_seconds=1)
        return answers.Health(status="ready")

    @app.get("/metrics", tags=["state"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts and times for Prometheus, in its text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/description", tags=["state"])
    async def description() -> answers.Description:
        """What is served: the networks with their classes and layers, the limits, the data set, the examples."""
        return cards.description(service)


def _add_guesses(app: FastAPI, service: Service) -> None:
    @app.post("/api/predict", **_IMAGE)
    async def predict(
        request: Request,
        response: Response,
        top: Top = 5,
        network: Annotated[str | None, Query(description="Only this network; otherwise all.")] = None,
        square: Annotated[bool, Query(description="Whether to send the network's square of the image, too.")] = False,
    ) -> answers.Prediction:
        """The most probable classes of an image, best first, by each network."""
        started = time.perf_counter()
        asked = [service.network(network)] if network is not None else list(service.networks.values())

        async def answer(picture: Picture) -> answers.Prediction:
            decoded = time.perf_counter()
            rows = await asyncio.gather(*(service.guess(one, picture) for one in asked))
            guessed = time.perf_counter()
            response.headers["Server-Timing"] = (
                f"decode;dur={1000 * (decoded - started):.1f}, network;dur={1000 * (guessed - decoded):.1f}"
            )
            return answers.Prediction(
                image=answers.ImageCard(width=picture.width, height=picture.height, format=picture.format),
                networks=[
                    cards.guesses(one, row, picture, top, with_square=square)
                    for one, row in zip(asked, rows, strict=True)
                ],
                milliseconds=round(1000 * (guessed - started), 1),
            )

        return await _answer_upload(service, request, answer)

    @app.post("/api/nearest", **_IMAGE)
    async def nearest(
        request: Request,
        network: NetworkId = "a",
        count: Annotated[int, Query(ge=1, le=100, description="How many.")] = 6,
    ) -> answers.Neighbours:
        """The images of the data set that are nearest to this one, by the network's last hidden layer."""
        asked, neighbourhood = service.network(network), cards.ready_neighbourhood(service)

        async def answer(picture: Picture) -> answers.Neighbours:
            layer, views = neighbourhood.layer_and_views(asked)
            features = await service.features(asked, picture, layer, views)
            found = await asyncio.to_thread(neighbourhood.nearest, asked, features, count)
            return cards.neighbours(asked, neighbourhood, found)

        return await _answer_upload(service, request, answer)


def _add_insights(app: FastAPI, service: Service) -> None:
    @app.post("/api/gradcam", **_IMAGE)
    async def gradcam(
        request: Request,
        index: Annotated[int, Query(ge=0, description="The class, by its position in the network's outputs.")],
        network: NetworkId = "a",
        layer: Annotated[str | None, Query(description="A layer with maps; otherwise the last of these.")] = None,
    ) -> answers.Heat:
        """Where the network saw what speaks for a class (Grad-CAM)."""
        asked = service.network(network)
        cards.check_class(asked, index)
        cards.check_layer(asked, layer, with_maps=True)

        async def answer(picture: Picture) -> answers.Heat:
            chosen = layer or asked.last_maps
            return cards.heat(asked, index, chosen, await service.look(asked, picture, index, chosen))

        return await _answer_upload(service, request, answer)

    @app.post("/api/activations", **_IMAGE)
    async def activations(
        request: Request,
        network: NetworkId = "a",
        maps: Annotated[int, Query(ge=1, le=512, description="Of each layer, the strongest so many.")] = 32,
        layer: Annotated[list[str] | None, Query(description="Only these layers; otherwise all.")] = None,
    ) -> answers.Activations:
        """What each layer makes of an image."""
        asked = service.network(network)
        for name in layer or []:
            cards.check_layer(asked, name)

        async def answer(picture: Picture) -> answers.Activations:
            return cards.activations(asked, await service.activations(asked, picture, maps, layer))

        return await _answer_upload(service, request, answer)

    @app.get("/api/kernels", tags=["networks"], responses=_only(404))
    async def kernels(network: NetworkId = "a") -> answers.Kernels:
        """The kernels of the first convolution, in as many banks as the network has towers; none where not RGB."""
        return cards.kernels(service.network(network))


def _add_pictures(app: FastAPI, service: Service) -> None:
    @app.get(
        "/api/pictures/{index}",
        tags=["pictures"],
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **_only(404, 503)},
    )
    async def picture(index: int) -> Response:
        """One image of the data set, as a square of 256 pixels."""
        neighbourhood = cards.ready_neighbourhood(service)
        pixels = await asyncio.to_thread(neighbourhood.picture, index, PICTURE_SIZE)
        if pixels is None:
            raise Refused(404, f"There is no image {index} in {neighbourhood.name}.")
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=90)
        return Response(file.getvalue(), media_type="image/jpeg")

    @app.get(
        "/api/examples/{index}",
        tags=["pictures"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **_only(404)},
    )
    async def example(index: int) -> Response:
        """A picture to begin with."""
        if not 0 <= index < len(service.examples):
            raise Refused(404, f"There is no example {index}; there are {len(service.examples)}.")
        return Response(await asyncio.to_thread(png_of, service.examples[index].pixels), media_type="image/png")

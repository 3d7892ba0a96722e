"""What a server can do, apart from HTTP: each request goes through the door, a decoder, and a network's thread.

Three kinds of threads share the work. The event loop reads requests and writes answers. The decoders' threads wait for
the decoding processes and cut squares. One thread, and only one, runs the networks: they use all cores by themselves.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from alexnet.data.squares import to_square
from alexnet.serve.batching import Batcher, Door
from alexnet.serve.examples import Example
from alexnet.serve.images import Decoders
from alexnet.serve.metrics import Metrics, resident_bytes
from alexnet.serve.nearest import Neighbourhood
from alexnet.serve.networks import LayerMaps, Network
from alexnet.serve.refusals import Refused
from alexnet.serve.settings import Settings
from alexnet.serve.uploads import image_in

Result = TypeVar("Result")


class Picture(NamedTuple):
    """An upload that was decoded."""

    height: int
    width: int
    format: str
    squares: dict[int, np.ndarray]
    """Side -> (side, side, 3) uint8 RGB, for each side that a network takes."""


class Service:
    """The networks and everything around them. Use as an asynchronous context manager."""

    def __init__(
        self,
        networks: Sequence[Network],
        settings: Settings,
        *,
        examples: Sequence[Example] = (),
        neighbourhood: Neighbourhood | None = None,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        """tell: for messages to the person at the terminal, from any thread."""
        self.networks = {network.id: network for network in networks}
        self.settings = settings
        self.examples = list(examples)
        self.neighbourhood = neighbourhood
        self.metrics = Metrics()
        self.door = Door(settings.max_requests, settings.max_bytes_at_once)
        self.is_ready = False
        self._tell = tell
        self._num_coming = 0
        self._decoders = Decoders(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._stack = AsyncExitStack()
        self._batchers = {
            network.id: Batcher(
                network.probabilities,
                self._thread,
                batch_size=settings.batch_size,
                max_wait_seconds=settings.max_wait_ms / 1000,
                coming=lambda: self._num_coming,
                on_batch=self._count_batch,
            )
            for network in networks
        }
        self.metrics.watch("alexnet_requests_inside", "Requests being answered.", lambda: self.door.num_inside)
        self.metrics.watch("alexnet_upload_bytes_held", "Bytes of uploads in memory.", lambda: self.door.bytes_held)
        self.metrics.watch(
            "alexnet_decoders_resident_memory_bytes",
            "Resident memory of the decoding processes.",
            lambda: sum(resident_bytes(number) or 0.0 for number in self._decoders.process_ids),
        )
        self.metrics.watch(
            "alexnet_images_waiting",
            "Images that wait for a pass.",
            lambda: sum(batcher.num_waiting for batcher in self._batchers.values()),
        )

    async def __aenter__(self) -> Service:
        await asyncio.to_thread(self._stack.enter_context, self._decoders)
        for batcher in self._batchers.values():
            await self._stack.enter_async_context(batcher)
        preparation: threading.Thread | None = None
        if self.neighbourhood is not None:
            arguments = (list(self.networks.values()), self._thread, self._tell)
            preparation = threading.Thread(target=self.neighbourhood.prepare, args=arguments, name="neighbours")
            preparation.start()
        self._stack.push_async_callback(self._end, preparation)
        self.is_ready = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_ready = False
        await self._stack.aclose()

    async def _end(self, preparation: threading.Thread | None) -> None:
        if self.neighbourhood is not None and preparation is not None:
            self.neighbourhood.stop()
            await asyncio.to_thread(preparation.join)
        self._thread.shutdown(wait=True, cancel_futures=True)

    def network(self, identifier: str) -> Network:
        """The network of that id. Raises Refused (404)."""
        if identifier not in self.networks:
            known = ", ".join(self.networks)
            raise Refused(404, f"There is no network {identifier!r} here; there is {known}.")
        return self.networks[identifier]

    async def open(self, body: bytes, content_type: str) -> Picture:
        """Decode an upload. Raises Refused for what is no image."""
        started = time.perf_counter()
        self._num_coming += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._decoders.executor, self._open, body, content_type
            )
        finally:
            self._num_coming -= 1
            self.metrics.decode_seconds.observe(time.perf_counter() - started)

    def _open(self, body: bytes, content_type: str) -> Picture:
        decoded = self._decoders.decode(image_in(body, content_type, self.settings.max_upload_bytes))
        sides = {network.square_size for network in self.networks.values()}
        height, width = decoded.pixels.shape[:2]
        return Picture(height, width, decoded.format, {side: to_square(decoded.pixels, side) for side in sides})

    async def guess(self, network: Network, picture: Picture) -> np.ndarray:
        """The probabilities (C,) of its classes, together with other requests' images."""
        return await self._batchers[network.id].submit(picture.squares[network.square_size])

    async def look(self, network: Network, picture: Picture, class_index: int, layer: str | None) -> np.ndarray:
        """Where a class was seen: (h, w) float32 over the crop. Raises UserError for what the network does not have."""
        square = picture.squares[network.square_size]
        return await self._alone(lambda: network.where_it_looked(square, class_index, layer))

    async def activations(
        self, network: Network, picture: Picture, max_maps: int, layers: Sequence[str] | None
    ) -> list[LayerMaps]:
        """What every layer makes of a picture."""
        square = picture.squares[network.square_size]
        return await self._alone(lambda: network.activations(square, max_maps, layers))

    async def features(self, network: Network, picture: Picture, layer: str, views: str) -> np.ndarray:
        """(1, D) float32: where the network puts a picture among others."""
        squares = torch.from_numpy(picture.squares[network.square_size]).unsqueeze(0)
        return await self._alone(lambda: network.features(squares, layer, views))

    async def _alone(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _count_batch(self, size: int, seconds: float) -> None:
        self.metrics.images.add(amount=size)
        self.metrics.batch_size.observe(size)
        self.metrics.batch_seconds.observe(seconds)

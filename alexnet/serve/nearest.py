"""The images of a data set that are nearest to one that is asked about, as in the paper's Figure 4 (right)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch

from alexnet.data.sources import Source
from alexnet.data.squares import ImageSet, load_images
from alexnet.errors import RunError
from alexnet.evaluation.features import stream_features
from alexnet.evaluation.neighbours import NeighbourIndex
from alexnet.serve.networks import Network

_IMAGES_PER_PASS = 16
"""Small, since requests wait while a pass is made."""
_SQUARES_BYTES = 512 * 2**20
"""Larger sets are decoded again when a picture is shown."""


class Neighbour(NamedTuple):
    """One image of the data set."""

    position: int
    key: str
    class_name: str
    distance: float
    """Euclidean, between the outputs of the network's last hidden layer."""


class Neighbourhood:
    """The images of a data set, and where each network puts them.

    `prepare` looks at every image once, in a thread of its own; until it is through, `state` says how far it is.
    """

    def __init__(self, source: Source, max_unreadable: float = 0.01) -> None:
        """source: its training images count, or, where there are none, those for validation."""
        self.source = source
        self.split = source.train or source.val
        self.failure: str | None = None
        self.num_done = 0
        self.num_in_all = 0
        self._max_unreadable = max_unreadable
        self._images: ImageSet | None = None
        self._indexes: dict[str, NeighbourIndex] = {}
        self._stopping = threading.Event()

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.source.name

    @property
    def is_ready(self) -> bool:
        """Whether every network has seen every image."""
        return self._images is not None and self.failure is None

    @property
    def share_done(self) -> float:
        """How much of the looking is done, from 0 to 1."""
        return 1.0 if self.is_ready else self.num_done / max(1, self.num_in_all)

    def prepare(self, networks: list[Network], executor: Executor, tell: Callable[[str], None]) -> None:
        """See every image with every network; the networks are asked in `executor`, a few images at a time.

        To be called in a thread. What goes wrong becomes `failure`. tell: for messages to the person at the terminal.
        """
        try:
            images: ImageSet | None = None
            self.num_in_all = len(self.split) * len(networks)
            for network in networks:
                if images is None or images.image_size != network.square_size:
                    images = self._load(network.square_size, tell)
                rows = list(self._in_turns(network, images, executor))
                if self._stopping.is_set():
                    return
                self._indexes[network.id] = NeighbourIndex(np.concatenate(rows))
            self._images = images
            tell(f"The {len(self.split):,} images of {self.name} are ready: nearest images can be asked for.")
        except Exception as error:
            self.failure = str(error) or type(error).__name__
            tell(f"Nearest images are not available: {self.failure}")

    def stop(self) -> None:
        """Let `prepare` end soon."""
        self._stopping.set()

    def nearest(self, network: Network, features: np.ndarray, count: int) -> list[Neighbour]:
        """The `count` nearest images to one with those features (1, D), nearest first."""
        assert self._images is not None
        found = self._indexes[network.id].search(features, count)
        names, labels, keys = self.source.class_names, self._images.labels, self._images.keys
        return [
            Neighbour(index, str(keys[index]), names[labels[index]], distance)
            for index, distance in zip(found.indices[0].tolist(), found.distances[0].tolist(), strict=True)
        ]

    def picture(self, index: int) -> np.ndarray | None:
        """Image `index` as (S, S, 3) uint8 RGB; None where there is none."""
        if self._images is None or not 0 <= index < len(self._images):
            return None
        return self._images.square(index)

    def _load(self, image_size: int, tell: Callable[[str], None]) -> ImageSet:
        images = load_images(
            self.split,
            image_size,
            num_workers=1,
            max_unreadable=self._max_unreadable,
            memory_limit_bytes=_SQUARES_BYTES,
            on_progress=lambda done, total: self._check(),
        )
        if images.skipped:
            tell(f"{len(images.skipped)} images of {self.name} cannot be read and are left out.")
        return images

    def _check(self) -> None:
        if self._stopping.is_set():
            raise RunError("the server is being stopped")

    def _in_turns(self, network: Network, images: ImageSet, executor: Executor) -> Iterator[np.ndarray]:
        """Features (n, D) float16, a few images at a time; between two of them the executor does other work."""
        started = self.num_done
        batches = stream_features(
            network.model,
            network.checkpoint.preprocessing,
            images,
            network.feature_layer,
            batch_size=_IMAGES_PER_PASS,
            device=network.predictor.device,
            num_workers=0,
            on_progress=lambda done, total: setattr(self, "num_done", started + done),
        )
        while not self._stopping.is_set():
            features: torch.Tensor | None = executor.submit(next, batches, None).result()
            if features is None:
                return
            stored = features.half()
            if not bool(stored.isfinite().all()):
                raise RunError(f"the outputs of {network.title} are not finite, or too large")
            yield stored.cpu().numpy()

"""The images of a data set that are nearest to one that is asked about, as in the paper's Figure 4 (right)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet.data.decode import UnreadableImage
from alexnet.data.squares import to_square
from alexnet.errors import RunError, UserError
from alexnet.evaluation.feature_files import FeatureTable
from alexnet.evaluation.image_list import ImageList, stream_squares
from alexnet.evaluation.neighbours import NeighbourIndex
from alexnet.serve.networks import Network

_IMAGES_PER_PASS = 16
"""Small, since requests wait while a pass is made."""


class Neighbour(NamedTuple):
    """One image of the data set."""

    position: int
    """In the list of images."""
    key: str
    class_name: str | None
    """None where the class is not known."""
    distance: float
    """Euclidean, between the outputs of the network's last hidden layer."""


class _Places(NamedTuple):
    """Where a network puts the images."""

    features: NeighbourIndex
    positions: np.ndarray
    """(N,) int64: which image of the list each row is of."""


class Neighbourhood:
    """The images of a data set, and where each network puts them.

    `prepare` looks at every image once, in a thread of its own; until it is through, `share_done` says how far it is.
    Features that are known already, of one network, spare that.
    """

    def __init__(self, name: str, images: ImageList, known: FeatureTable | None = None) -> None:
        """name: for people. known: the features of these images.

        Raises UserError where features are known of images that are not in the list.
        """
        self.name = name
        self.images = images
        self.known = known
        self.failure: str | None = None
        self.num_done = 0
        self.num_in_all = 0
        self.is_ready = False
        self._places: dict[str, _Places] = {}
        self._stopping = threading.Event()
        self._positions = None if known is None else _positions_of(known, images)

    @property
    def share_done(self) -> float:
        """How much of the looking is done, from 0 to 1."""
        return 1.0 if self.is_ready else self.num_done / max(1, self.num_in_all)

    def layer_and_views(self, network: Network) -> tuple[str, str]:
        """By which layer's outputs images are compared, and over which views they are averaged."""
        if self.known is not None:
            return self.known.about["layer"], self.known.about["views"]
        return network.feature_layer, "center"

    def prepare(self, networks: Sequence[Network], executor: Executor, tell: Callable[[str], None]) -> None:
        """See every image with every network; the networks are asked in `executor`, a few images at a time.

        To be called in a thread. What goes wrong is told, and `failure` set. tell: for messages to the person at the
        terminal.
        """
        try:
            self.num_in_all = len(self.images) * len(networks)
            for network in networks:
                self._places[network.id] = self._look(network, executor, tell)
            self.is_ready = True
            tell(f"The {len(self.images):,} images of {self.name} are ready: nearest images can be asked for.")
        except _Stopped:
            return
        except Exception as error:
            # Whoever asks need not know where the images lie on this machine.
            self.failure = "the images could not be looked at; the server's terminal says why"
            tell(f"Nearest images are not available: {str(error) or type(error).__name__}")

    def stop(self) -> None:
        """Let `prepare` end soon."""
        self._stopping.set()

    def nearest(self, network: Network, features: np.ndarray, count: int) -> list[Neighbour]:
        """The `count` nearest images to one with those features (1, D), nearest first."""
        places = self._places[network.id]
        found = places.features.search(features, count)
        positions = places.positions[found.indices[0]].tolist()
        return [
            Neighbour(position, self._name(position), self.images.class_name(position), distance)
            for position, distance in zip(positions, found.distances[0].tolist(), strict=True)
        ]

    def picture(self, position: int, size: int) -> np.ndarray | None:
        """An image of the list as (size, size, 3) uint8 RGB; None where there is none, or no longer."""
        if not 0 <= position < len(self.images):
            return None
        try:
            return to_square(self.images.read(position), size)
        except UnreadableImage:
            return None

    def _name(self, position: int) -> str:
        path = Path(str(self.images.keys[position]))
        return path.name if path.is_absolute() else path.as_posix()

    def _look(self, network: Network, executor: Executor, tell: Callable[[str], None]) -> _Places:
        if self.known is not None and self._positions is not None:
            return _Places(NeighbourIndex(self.known.values), self._positions)
        rows, positions = zip(*self._in_turns(network, executor, tell), strict=True)
        return _Places(NeighbourIndex(np.concatenate(rows)), np.concatenate(positions))

    def _in_turns(
        self, network: Network, executor: Executor, tell: Callable[[str], None]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features (n, D) float16 and positions, a few at a time; between two of them the executor does other work."""
        started = self.num_done
        layer, views = self.layer_and_views(network)
        batches = stream_squares(
            self.images,
            network.square_size,
            _IMAGES_PER_PASS,
            num_workers=1,
            on_skip=lambda key, reason: tell(f"{key} is unreadable and left out: {reason}."),
            on_progress=lambda done, total: setattr(self, "num_done", started + done),
        )
        for positions, pixels in batches:
            if self._stopping.is_set():
                raise _Stopped
            features = executor.submit(network.features, pixels, layer, views).result()
            with np.errstate(over="ignore"):
                stored = features.astype(np.float16)
            if not np.isfinite(stored).all():
                raise RunError(f"the outputs of {network.title} are not finite, or too large")
            yield stored, positions


class _Stopped(Exception):
    """The server is being stopped."""


def _positions_of(table: FeatureTable, images: ImageList) -> np.ndarray:
    """(N,) int64: the image of the list that each row of the table is of. Raises UserError where one is missing."""
    places = {name: place for place, name in enumerate(zip(images.splits, images.keys, strict=True))}
    positions = np.array([places.get(name, -1) for name in zip(table.splits, table.keys, strict=True)], np.int64)
    missing = np.flatnonzero(positions < 0)
    if len(missing):
        raise UserError(
            f"{len(missing)} images of the file of features are no longer there, the first being "
            f"{table.keys[missing[0]]}; make it again with `alexnet features`"
        )
    return positions

"""Signs of life: what every process of a training is doing, and since when, so that a hang can be given a name.

A process that waits for another in vain learns from torch only that it waited too long. Each therefore tells torchrun's
store every few seconds what it is doing; who gives up waiting reads there who is behind, and in what.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

_INTERVAL_SECONDS = 2.0
_SILENCE_SECONDS = 5 * _INTERVAL_SECONDS
"""A process that has not said anything for so long is dead, stopped, or cut off."""

_ANSWER_SECONDS = 5.0
"""torch's store has no shorter limit than a minute, and over a link that is cut it answers nothing at all."""


class Store(Protocol):
    """What is used of torch.distributed's stores."""

    def set(self, key: str, value: str) -> None:
        """Keep a value under a key."""

    def check(self, keys: list[str]) -> bool:
        """Whether all of them have been set."""
        ...

    def get(self, key: str) -> bytes:
        """The value, which is there."""
        ...


@dataclass(frozen=True)
class Sign:
    """One process's last sign of life."""

    rank: int
    doing: str
    step: int
    doing_seconds: float
    """How long it has been doing that."""
    silent_seconds: float
    """How long ago it said so."""

    def describe(self) -> str:
        """As in: rank 2 has been reading images for 65 s (step 118)."""
        if self.silent_seconds > _SILENCE_SECONDS:
            return (
                f"rank {self.rank} has not been heard of for {self.silent_seconds:.0f} s; the last it said was "
                f"{self.doing} (step {self.step})"
            )
        return f"rank {self.rank} has been {self.doing} for {self.doing_seconds:.0f} s (step {self.step})"


class Heartbeat:
    """Tells the store what this process is doing, from a thread of its own, until it is closed."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._now = ("starting", 0, time.monotonic())
        self._closed = threading.Event()
        self._send()
        threading.Thread(target=self._beat, name="alexnet-heartbeat", daemon=True).start()

    def doing(self, what: str, step: int) -> None:
        """From now on this process is doing that, as in "reading images"; costs nothing."""
        self._now = (what, step, time.monotonic())

    def others(self) -> list[Sign]:
        """The last signs of the other processes, those first that are furthest behind."""
        signs = []
        for rank in range(self._size):
            key = _key(rank)
            if rank == self._rank or not self._store.check([key]):
                continue
            said = json.loads(self._store.get(key))
            silent = time.time() - said["at"]
            signs.append(Sign(rank, said["doing"], said["step"], said["seconds"] + silent, silent))
        return sorted(signs, key=lambda sign: (sign.step, -sign.silent_seconds))

    def others_if_reachable(self) -> list[Sign]:
        """As `others`; nothing where torchrun, which keeps the signs, does not answer within a few seconds."""
        found: list[Sign] = []

        def ask() -> None:
            with suppress(Exception):
                found.extend(self.others())

        asking = threading.Thread(target=ask, name="alexnet-last-signs", daemon=True)
        asking.start()
        asking.join(_ANSWER_SECONDS)
        return [] if asking.is_alive() else found

    def close(self) -> None:
        """Fall silent."""
        self._closed.set()

    def _beat(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            try:
                self._send()
            except Exception:  # the store goes with torchrun; the training itself will say what is wrong
                return

    def _send(self) -> None:
        doing, step, since = self._now
        # The clock of the wall, which machines share; seconds count from this process's own.
        said = {"doing": doing, "step": step, "seconds": time.monotonic() - since, "at": time.time()}
        self._store.set(_key(self._rank), json.dumps(said))


def _key(rank: int) -> str:
    return f"sign-of-life/{rank}"

"""The processes of one training: which of them this one is, and the few things they tell each other.

torchrun starts them (`alexnet train --devices` starts torchrun), and each reads its place from its environment. A
single process is a world of its own, where none of this communicates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from alexnet.errors import RunError, UserError
from alexnet.runtime.heartbeat import Heartbeat

Value = TypeVar("Value")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets, and what a process group needs."""


@dataclass(frozen=True)
class World:
    """One process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those on this machine."""
    local_size: int = 1
    heartbeat: Heartbeat | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, and talks to people."""
        return self.rank == 0

    def doing(self, what: str, step: int) -> None:
        """Let the others know what this process is at, should they wait for it in vain; costs nothing."""
        if self.heartbeat is not None:
            self.heartbeat.doing(what, step)

    def share(self, count: int) -> range:
        """This process's part of `count` things: consecutive, in the order of the ranks, sizes equal to within one."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place; every process gets the sum."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_main(self, value: Value) -> Value:
        """The main process's value, on every process; the others' own is ignored."""
        if self.size == 1:
            return value
        values = [value if self.is_main else None]
        dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def gather(self, value: Value) -> list[Value]:
        """Everybody's value, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Value | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong inside for one process goes wrong for all at the end: none waits for one that is gone.

        The main process raises the error, naming the ranks; the others raise it marked as told. Nothing inside may
        communicate.
        """
        if self.size == 1:
            yield
            return
        mine: Exception | None = None
        try:
            yield
        except Exception as error:
            mine = error
        kind = type(mine) if isinstance(mine, UserError | RunError) else RunError
        told = None if mine is None else (kind, str(mine) or type(mine).__name__)
        failures = self.gather(told)
        if any(failure is not None for failure in failures):
            raise self._shared_error(failures) from mine

    def _shared_error(self, failures: Sequence[tuple[type[UserError | RunError], str] | None]) -> UserError | RunError:
        rank, first = next((rank, failure) for rank, failure in enumerate(failures) if failure is not None)
        kind, text = first
        same = all(failure == first for failure in failures)
        return self.told_once(kind(text if same else f"on rank {rank}: {text}"))

    def told_once(self, error: UserError | RunError) -> UserError | RunError:
        """The error, which every process is about to raise, marked so that only the main process prints it."""
        error.is_told_elsewhere = not self.is_main
        return error


ALONE = World()


def held_here(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that is divided among processes (a DTensor); any other is itself."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


_MOST_NAMED = 3
"""Processes in a message; those that are furthest behind come first."""


@contextmanager
def join_world(timeout_minutes: float) -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun, a world of one.

    A process that waits for another longer than the timeout fails with a RunError.
    """
    given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    if int(given.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    missing = [name for name in _ENVIRONMENT if name not in given]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {given['WORLD_SIZE']}, but {', '.join(missing)} is not set: start the processes with "
            "torchrun, or with alexnet train --devices; or unset WORLD_SIZE."
        )
    store, rank, size = next(rendezvous("env://"))
    # torchrun keeps one store for all of its restarts (torch 2.13). Without a name of their own, processes would be
    # told the addresses of those that died, and wait for them.
    store = PrefixStore(f"alexnet/restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(given["LOCAL_RANK"]) % torch.cuda.device_count())
    heartbeat = Heartbeat(store, rank, size)
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = World(rank, size, int(given["LOCAL_RANK"]), local_size, heartbeat)
    try:
        timeout = timedelta(minutes=timeout_minutes)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        yield world
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise RunError(_describe_loss(error, heartbeat)) from error
    else:
        dist.destroy_process_group()  # after an error it may wait for those that are gone
    finally:
        heartbeat.close()


def _describe_loss(error: RuntimeError, heartbeat: Heartbeat) -> str:
    """Why the processes have lost each other, as far as it can be told from here."""
    reason = str(error).splitlines()[0]
    signs = heartbeat.others_if_reachable()
    if not signs:
        return f"The processes have lost each other ({reason}). The same command goes on from the last checkpoint."
    others = "; ".join(sign.describe() for sign in signs[:_MOST_NAMED])
    return (
        f"The processes have lost each other: {others} ({reason}). Look there first; the same command goes on from the "
        "last checkpoint."
    )

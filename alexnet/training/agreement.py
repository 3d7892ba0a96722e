"""Stopping and saving are decided by one process, by a signal or a clock, and done by all after the same step."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist

from alexnet.runtime.distributed import World


class Decision(NamedTuple):
    """What to do after a step."""

    stop: bool
    save: bool


class Agreement:
    """Turns what each process wants after a step into what all of them do.

    An answer would have to be waited for, so it is that to the question of one step before, which has arrived by then.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: tuple[dist.Work, torch.Tensor] | None = None

    def after_step(self, *, stop: bool, save: bool) -> Decision:
        """Every process calls this after every step. stop: it has been told to; save: it is time to."""
        if self._world.size == 1:
            return Decision(stop, save)
        answer = self._answer()
        wanted = torch.tensor([stop, save], dtype=torch.uint8)
        work = dist.all_reduce(wanted, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._asked = work, wanted
        return answer

    def close(self) -> None:
        """Wait for the last question, which nobody needs an answer to."""
        self._answer()

    def _answer(self) -> Decision:
        if self._asked is None:
            return Decision(stop=False, save=False)
        work, wanted = self._asked
        self._asked = None
        work.wait()
        stop, save = wanted.tolist()
        return Decision(bool(stop), bool(save))

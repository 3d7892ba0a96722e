"""Time on a device that works on its own, and where the time of a step goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def time_block(work: Callable[[], object], num_steps: int, device: torch.device) -> float:
    """Seconds of num_steps calls of `work`; the device is waited for before and after them, not in between."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(num_steps):
        work()
    synchronize(device)
    return time.perf_counter() - started


class PhaseClock:
    """Divides the time of a step into named phases: `mark` gives a phase the time since the mark before."""

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self.device = device
        self._now = now
        self._steps: list[dict[str, float]] = []
        self._last = 0.0

    def start_step(self) -> None:
        """A step begins here."""
        self._steps.append({})
        self._last = self._read()

    def mark(self, phase: str) -> None:
        """A phase ends here. A phase that comes several times in a step has the sum."""
        now = self._read()
        step = self._steps[-1]
        step[phase] = step.get(phase, 0.0) + now - self._last
        self._last = now

    def milliseconds(self) -> dict[str, float]:
        """The median of each phase over the steps, in the order in which they first came."""
        phases = list(dict.fromkeys(phase for step in self._steps for phase in step))
        return {phase: 1000 * statistics.median(step.get(phase, 0.0) for step in self._steps) for phase in phases}

    def _read(self) -> float:
        synchronize(self.device)
        return self._now()


def measure_phases(
    work: Callable[[], object],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    num_steps: int,
    clock: PhaseClock,
) -> dict[str, float]:
    """Milliseconds of "input", "forward" and, with an optimizer, "backward" and "update" in a step.

    work: one step. The step is left as it is: hooks of the model and the optimizer tell where its parts end. So the
    loss counts as backward, and everything before the model is called, dropout masks included, as input.
    """
    last = "forward" if optimizer is None else "update"
    hooks = [
        model.register_forward_pre_hook(lambda *_: clock.mark("input")),
        model.register_forward_hook(lambda *_: clock.mark("forward")),
    ]
    if optimizer is not None:
        hooks.append(optimizer.register_step_pre_hook(lambda *_: clock.mark("backward")))
        hooks.append(optimizer.register_step_post_hook(lambda *_: clock.mark("update")))
    try:
        for _ in range(num_steps):
            clock.start_step()
            work()
            clock.mark(last)
    finally:
        for hook in hooks:
            hook.remove()
    return clock.milliseconds()

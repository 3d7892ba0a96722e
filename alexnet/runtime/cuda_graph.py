"""Functions captured once into a CUDA graph and replayed: one launch by the host in place of some hundred.

A captured function reads its inputs from buffers that stay where they are. It must be free of anything that waits for
the device, and of anything decided by a value on it. What it allocates belongs to the graph's own memory pool.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

Function = Callable[[Mapping[str, Tensor]], Any]


class CaptureError(RuntimeError):
    """A function cannot be captured; its message is one line."""


class Runner(Protocol):
    """How a function is run on one device: eagerly first, then captured."""

    def eagerly(self, function: Function, inputs: Mapping[str, Tensor]) -> Any:
        """The function's result, of an ordinary call that also prepares a capture."""
        ...

    def capture(self, function: Function, inputs: Mapping[str, Tensor]) -> tuple[Callable[[], None], Any]:
        """(replay, result): the result is where every replay leaves it. Capturing itself computes nothing."""
        ...


class CudaRunner:
    """Runs and captures on a side stream, as captures need; the caller's stream waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.device = device

    def eagerly(self, function: Function, inputs: Mapping[str, Tensor]) -> Any:
        """On the side stream: libraries choose their algorithms and allocate their workspaces here."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = function(inputs)
        current.wait_stream(self.stream)
        return result

    def capture(self, function: Function, inputs: Mapping[str, Tensor]) -> tuple[Callable[[], None], Any]:
        """On the same stream, in a memory pool of its own."""
        graph = torch.cuda.CUDAGraph()
        # Only this thread's calls are watched: the loader's threads may allocate pinned memory meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = function(inputs)
        return graph.replay, result


class GraphedCall:
    """Calls a function of named tensors: a few times eagerly, from then on by replaying its graph.

    The eager calls are ordinary ones, with the effects on weights that they have; nothing is computed twice. Inputs are
    copied into static buffers before each call. Results are where the function left them: a later call overwrites
    them. When the shapes or dtypes of the inputs, or the key, change, the graph is given up and another one made.
    """

    def __init__(
        self, function: Function, runner: Runner, device: torch.device, *, eager_calls: int = 3, max_captures: int = 64
    ) -> None:
        """eager_calls: how many precede each capture; max_captures: more raise CaptureError."""
        self.function = function
        self.runner = runner
        self.device = device
        self.eager_calls = eager_calls
        self.max_captures = max_captures
        self.num_captures = 0
        self.buffers: dict[str, Tensor] = {}
        self._signature: Hashable = None
        self._calls_left = eager_calls
        self._replay: Callable[[], None] | None = None
        self._result: Any = None

    @property
    def is_captured(self) -> bool:
        """Whether the next call with the same signature is a replay."""
        return self._replay is not None

    def __call__(self, inputs: Mapping[str, Tensor], key: Hashable = ()) -> Any:
        """The function's result. inputs: tensors on any device. key: whatever else the function depends on.

        Raises CaptureError when the function cannot be captured; it has then had no effect.
        """
        self._prepare(inputs, key)
        for name, tensor in inputs.items():
            self.buffers[name].copy_(tensor, non_blocking=True)
        if self._replay is None and self._calls_left > 0:
            self._calls_left -= 1
            return self.runner.eagerly(self.function, self.buffers)
        if self._replay is None:
            self._capture()
        assert self._replay is not None
        self._replay()
        return self._result

    def forget(self) -> None:
        """Give up the graph and its memory; the next call starts over."""
        self._signature, self._replay, self._result = None, None, None

    def _prepare(self, inputs: Mapping[str, Tensor], key: Hashable) -> None:
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in sorted(inputs.items()))
        if (shapes, key) == self._signature:
            return
        # The old graph's memory is free before the new one takes its own.
        self.forget()
        self.buffers = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device) for name, tensor in inputs.items()
        }
        self._signature = (shapes, key)
        self._calls_left = self.eager_calls

    def _capture(self) -> None:
        if self.num_captures >= self.max_captures:
            raise CaptureError(f"its inputs or settings changed more than {self.max_captures} times")
        try:
            self._replay, self._result = self.runner.capture(self.function, self.buffers)
        except RuntimeError as error:
            self.forget()
            raise CaptureError(str(error).strip().splitlines()[0] if str(error).strip() else repr(error)) from error
        self.num_captures += 1

"""Batches on their way to the device: pinned, copied on a stream of their own, a few of them ahead of the step.

On devices other than CUDA there is nothing to overlap, and batches pass through as they are.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import torch

from alexnet.data.loader import Batch


class Mover(Protocol):
    """Brings batches to a device, in two halves on two threads."""

    def start(self, batch: Batch) -> Any:
        """Begin the copy, on the transferring thread; what it returns goes to `finish`."""
        ...

    def finish(self, started: Any) -> Batch:
        """The batch on the device, on the thread that uses it."""
        ...


class CudaMover:
    """Copies from pinned memory on a side stream; a batch is waited for by the stream that uses it, not by the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        """Pins what is not pinned, and enqueues the copies."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
            # torch keeps the pinned block until the copy is done, whoever else has let go of it.
            return pinned.to(self.device, non_blocking=True)

        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            moved = with_tensors(batch, move)
            event = torch.cuda.Event()
            event.record(self.stream)
        return moved, event

    def finish(self, started: tuple[Batch, torch.cuda.Event]) -> Batch:
        """Orders the current stream behind the copies."""
        batch, event = started
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)

        def mark(tensor: torch.Tensor) -> torch.Tensor:
            # Its memory belongs to the side stream; it may be used again only when this stream is done with it too.
            tensor.record_stream(current)
            return tensor

        return with_tensors(batch, mark)


def with_tensors(batch: Batch, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The batch with a function applied to each of its tensors."""
    tensors = {
        field.name: function(value)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    return dataclasses.replace(batch, **tensors)


def batches_on_device(batches: Iterator[Batch], device: torch.device, *, ahead: int = 2) -> Generator[Batch]:
    """The same batches in the same order, with their tensors on the device.

    ahead: batches that are on the device, or on their way, beside the one in use. Closing the generator ends the
    reading of `batches` and closes it.
    """
    if device.type != "cuda":
        return _pass_through(batches)
    return prefetch(batches, CudaMover(device), ahead=ahead)


def _pass_through(batches: Iterator[Batch]) -> Generator[Batch]:
    try:
        yield from batches
    finally:
        _close(batches)


def prefetch(batches: Iterator[Batch], mover: Mover, *, ahead: int) -> Generator[Batch]:
    """`batches_on_device` with a given mover.

    A thread does the first half: pinning is a copy by the host, of 150 MB for a batch of 1024, and that must not hold
    up the thread that launches the steps.
    """
    ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    places = threading.Semaphore(ahead)
    closing = threading.Event()

    def transfer() -> None:
        try:
            while True:
                places.acquire()
                if closing.is_set():
                    break
                batch = next(batches, None)
                if batch is None:
                    break
                ready.put(("batch", mover.start(batch)))
        except BaseException as error:  # it is raised again where the batches are used
            ready.put(("error", error))
        else:
            ready.put(("end", None))
        finally:
            _close(batches)

    thread = threading.Thread(target=transfer, name="alexnet-transfer", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            batch = mover.finish(item)
            places.release()
            yield batch
    finally:
        closing.set()
        places.release()
        thread.join()


def _close(batches: Iterator[Batch]) -> None:
    if isinstance(batches, Generator):
        batches.close()

"""Checkpoints are written beside the training: a step waits until the weights are copied, not for the disk."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alexnet.training.checkpoint import Checkpoint, save_checkpoint

_STANDS_BACK = 10
"""Added to the niceness of the thread that writes. It needs a second of a core for as_run, and while a step's threads
share theirs with it, the others of the step wait."""


def _stand_back() -> None:
    """Let the threads of the training go first, on Linux, which has a niceness for each thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _STANDS_BACK)


class CheckpointWriter:
    """Writes one checkpoint at a time, in a thread; as a context manager it waits at the end and ends the thread."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def write(self, path: Path, checkpoint: Checkpoint, *, keep: int = 1) -> None:
        """Begin to write; the checkpoint's tensors may change as soon as this returns.

        Waits for the checkpoint before, and raises what its writing raised (RunError when the disk is full).
        """
        self.wait()
        copy = replace(
            checkpoint,
            model_state=_copied(checkpoint.model_state),
            training_state=_copied(checkpoint.training_state),
        )
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="alexnet-checkpoint", initializer=_stand_back)
        self._writing = self._thread.submit(save_checkpoint, path, copy, keep=keep)

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is not on the disk yet."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Wait until everything is on the disk; raises what the writing raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None


def _copied(value: Any) -> Any:
    """Nested dicts and lists with every tensor copied to the host."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value

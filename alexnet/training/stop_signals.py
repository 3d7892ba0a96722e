"""Signals that end a run early: it finishes its step, saves everything and says how it ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTED_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h, "try again later": what a scheduler (Slurm: RequeueExit) can start a job again on."""

INTERRUPTED_EXIT_CODE = 130
"""What a shell reports of a program that Ctrl-C has ended."""

_STOPPING = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGUSR1"):  # Windows has none
    _STOPPING.append(signal.SIGUSR1)  # what schedulers are told to send some minutes before they end a job


class StopRequest:
    """Whether, and by which signal, the run has been told to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None


@contextmanager
def stop_requested_by_signal(request: StopRequest) -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGUSR1 set the request, so that the loop finishes its step.

    A second SIGINT interrupts at once. (A second SIGTERM does not: torchrun passes an interrupt on as SIGTERM, to
    processes that have had the SIGINT of their terminal already.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    # A handler that was not installed from Python could not be put back: it stays.
    before = {number: handler for number, handler in handlers.items() if handler is not None}

    def stop(number: int, frame: FrameType | None) -> None:
        if request.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.number = request.number or number

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(number: int | None) -> int:
    """Of a run that a signal stopped, everything being saved; None: another of its processes got the signal."""
    return INTERRUPTED_EXIT_CODE if number == signal.SIGINT else PREEMPTED_EXIT_CODE

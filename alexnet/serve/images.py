"""Uploads to pixels, guarded: what a file is is judged by its content, and every step has a limit."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import numpy as np

from alexnet.serve import decoder_process
from alexnet.serve.decoder_process import DECODED, HEADER, UNREADABLE, format_of
from alexnet.serve.refusals import Refused
from alexnet.serve.settings import Settings

_SPAWN = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads and memory
_START_SECONDS = 60.0
_ANSWER_SECONDS = 2.0
"""An idle process that does not answer by then is replaced; it answers within a millisecond."""
FORMATS = ["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "JPEG 2000", "PNM"]


class Decoded(NamedTuple):
    """An image as a person sees it: upright, RGB."""

    pixels: np.ndarray
    """(H, W, 3) uint8."""
    format: str
    """Of the file: JPEG, PNG, ..."""


class Decoders:
    """A few processes that decode, and as many threads that wait for them. Use as a context manager.

    A process that takes longer than `settings.decode_seconds`, or dies, is replaced by a new one. If it died, the image
    is decoded once more.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.executor = ThreadPoolExecutor(settings.num_decoders, thread_name_prefix="decoding")
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._processes: set[_Process] = set()
        self._is_closing = False

    def __enter__(self) -> Decoders:
        # All of them begin before the first is waited for.
        for process in [self._start() for _ in range(self.settings.num_decoders)]:
            process.wait_until_ready()
            self._idle.put(process)
        return self

    def _start(self) -> _Process:
        process = _Process(self.settings.max_pixels)
        self._processes.add(process)
        return process

    def _end(self, process: _Process) -> None:
        process.end()
        self._processes.discard(process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Nobody waits for an answer any longer, so that a decoder at work need not finish.
        self._is_closing = True
        for process in list(self._processes):
            process.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)
        for process in list(self._processes):
            self._end(process)

    @property
    def process_ids(self) -> list[int]:
        """Of the decoding processes."""
        return [process.pid for process in list(self._processes)]  # threads replace them meanwhile

    def decode(self, data: bytes) -> Decoded:
        """Decode a file; to be called from a thread of `executor`. Raises Refused with what is wrong with it."""
        if not data:
            raise Refused(400, "The image is empty: it has no bytes at all.")
        if not format_of(data):
            raise Refused(
                415, f"This is not an image, or of a format that is not known here. Known are {', '.join(FORMATS)}."
            )
        process = self._idle.get()
        try:
            # A process that was killed or stopped while it was idle says nothing about the image.
            if not process.answers():
                process = self._replace(process)
            try:
                return process.decode(data, self.settings.decode_seconds)
            except _Died:  # perhaps something else killed it, for example a machine without memory: one more time
                process = self._replace(process)
                return process.decode(data, self.settings.decode_seconds)
        except _Lost as lost:
            process = self._replace(process)
            raise Refused(422, f"This image cannot be used: {lost}.") from None
        finally:
            self._idle.put(process)

    def _replace(self, process: _Process) -> _Process:
        self._end(process)
        if self._is_closing:
            raise Refused(503, "The server is being stopped.")
        process = self._start()
        process.wait_until_ready()
        return process


class _Lost(Exception):
    """The process cannot be used any longer; str() says why."""


class _Died(_Lost):
    """The process has ended."""


class _Process:
    def __init__(self, max_pixels: int) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=decoder_process.serve, args=(theirs, max_pixels), name="alexnet-decoder", daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def wait_until_ready(self) -> None:
        """Wait for the first message of a new process. Raises RuntimeError if none comes."""
        if not self._is_ready_within(_START_SECONDS):
            self.end()
            raise RuntimeError(f"a decoding process ended or did not start within {_START_SECONDS:.0f} s")

    def answers(self) -> bool:
        """Return whether the process is there and runs. One that does not answer is killed."""
        try:
            self._connection.send_bytes(b"")
        except OSError:
            return False
        return self._is_ready_within(_ANSWER_SECONDS)

    def _is_ready_within(self, seconds: float) -> bool:
        try:
            return self._connection.poll(seconds) and self._connection.recv_bytes() == b"ready"
        except (EOFError, OSError):
            return False

    def decode(self, data: bytes, seconds: float) -> Decoded:
        """Decode a file. Raises Refused for a file that is no image, and _Lost if the process died or was too slow."""
        # A process that is stopped neither reads nor writes: killing it ends every send and receive below.
        timed_out = threading.Event()
        timer = threading.Timer(seconds, lambda: (timed_out.set(), self.kill()))
        timer.start()
        try:
            self._connection.send_bytes(data)
            answer = self._connection.recv_bytes()
            outcome, height, width, length = HEADER.unpack_from(answer)
            text = answer[HEADER.size : HEADER.size + length].decode("utf-8", "replace")
            if outcome == DECODED:
                pixels = np.empty((height, width, 3), np.uint8)
                self._connection.recv_bytes_into(pixels.data.cast("B"))
                return Decoded(pixels, text)
        except (EOFError, OSError):
            if timed_out.is_set():
                raise _Lost(f"decoding it takes longer than {seconds:g} s") from None
            raise _Died("the decoder broke down over it; the file is damaged") from None
        finally:
            timer.cancel()
            timer.join()  # so that it cannot kill a later decode
        if outcome == UNREADABLE:
            raise Refused(422, f"This image cannot be used: {text}.")
        raise RuntimeError(f"the decoder failed: {text}")

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.join(5)
        self._connection.close()

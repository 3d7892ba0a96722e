"""How a process that trains with others ends."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End this process with an exit code; one of several of a training without taking the interpreter down first.

    Gloo's threads may still hold tensors, and need the interpreter to release them. One that asks for it while it is
    being taken down aborts the process (torch 2.13, CPython 3.11), and a finished training counts as a failed one.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever read it is gone
            stream.flush()
    os._exit(code)

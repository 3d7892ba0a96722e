"""What a measurement was made on, and what else that machine was doing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet.runtime.environment import describe_environment


def describe_machine() -> dict[str, Any]:
    """The environment, with `load_average` over 1, 5 and 15 minutes where the system tells it."""
    environment = describe_environment()
    with suppress(OSError):
        environment["load_average"] = [float(part) for part in Path("/proc/loadavg").read_text().split()[:3]]
    return environment

"""The command in a process of its own, as a shell starts it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def run_process(*arguments: object, timeout: float = 240, **options: Any) -> subprocess.CompletedProcess[str]:
    """`alexnet ARGUMENTS...`, to its end: returncode, stdout and stderr. options: as of `subprocess.run`."""
    command = [sys.executable, "-m", "alexnet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)

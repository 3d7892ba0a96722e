"""`--devices`: the same command once for each device of this machine, started and watched by torchrun."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from alexnet.errors import UserError


def without_devices(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--devices N`, for the processes that are started."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--devices":
            skip = True
        elif not argument.startswith("--devices="):
            kept.append(argument)
    return kept


def launch(num_devices: int, arguments: Sequence[str]) -> int:
    """Run `alexnet ARGUMENTS` in so many processes, each with a device of its own; returns the exit code.

    Raises UserError where this machine has fewer GPUs than asked for, and inside a process of torchrun.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from alexnet.training.stop_signals import exit_code

    if "RANK" in os.environ:
        raise UserError("--devices starts torchrun, and this process was started by it: leave --devices out.")
    available = torch.cuda.device_count()
    if available and num_devices > available:
        raise UserError(f"--devices {num_devices}: this machine has {available} GPU(s).")
    cores = os.cpu_count() or 1
    # torchrun would give each process one thread, and say so.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // num_devices)))
    # What a process has to say it says itself; torchrun's own words about its end would bury it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "alexnet", *arguments)
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return exit_code(error.sigval)
    return 0

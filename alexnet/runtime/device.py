"""What this machine is good at: the device, the precision and the memory layout, decided once."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

import torch

from alexnet.config import RuntimeConfig
from alexnet.errors import UserError
from alexnet.ops import native
from alexnet.runtime.process_settings import keep_freed_memory, use_exact_float32

_PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU; any other name is taken at its word or refused."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        # For a name that torch does not know it lists two dozen that nobody has.
        why = "torch knows no such device" if "Expected one of" in reason else reason
        raise UserError(f"the device {name!r} cannot be used here ({why}); use auto, cpu, cuda or mps.") from None
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is faster than float32 there: AMX or AVX512-BF16 on a CPU, Ampere on among GPUs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of activations. Weights, their updates and the loss stay float32 whatever the answer."""
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return _PRECISIONS[name]


class Execution(NamedTuple):
    """How a network is computed. Maps are channels-last; weights, their updates and the loss are float32."""

    device: torch.device
    dtype: torch.dtype
    """Of activations."""
    conv1: Literal["direct", "space_to_depth"]


def choose_execution(runtime: RuntimeConfig) -> Execution:
    """The one place where "auto" becomes a choice for this machine; what the recipe names is taken as it is."""
    device = choose_device(runtime.device)
    # Tensor cores want 16 channels and more; on a CPU in float32 conv1 loses by it (docs/performance.md).
    conv1 = ("space_to_depth" if device.type == "cuda" else "direct") if runtime.conv1 == "auto" else runtime.conv1
    return Execution(device, choose_precision(runtime.precision, device), conv1)


def configure(runtime: RuntimeConfig) -> Execution:
    """Apply the process-wide settings of a recipe; returns what it chooses for this machine.

    To be called inside `restored_settings`, which puts them back.
    """
    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    if runtime.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    # use_deterministic_algorithms does the same, and imports torch's compiler: most of a second of every start.
    torch.set_deterministic_debug_mode("error" if runtime.deterministic else "default")
    torch.backends.cudnn.benchmark = not runtime.deterministic
    use_exact_float32()
    keep_freed_memory()
    native.use(runtime.kernels == "auto")
    return choose_execution(runtime)


def has_work(device: torch.device) -> bool:
    """Whether work that was given to the device is still to be done; a CPU does it at once."""
    return device.type == "cuda" and not torch.cuda.current_stream(device).query()


def default_num_workers(images_in_memory: bool, num_processes: int = 1) -> int:
    """Reading threads: one where images only need to be copied, one a core (at most eight) where they are decoded.

    num_processes: that share this machine.
    """
    return 1 if images_in_memory else max(1, min(8, (os.cpu_count() or 1) // num_processes))


def num_workers_of(runtime: RuntimeConfig, images_in_memory: bool, num_processes: int = 1) -> int:
    """Reading threads: as many as the recipe says, or the default."""
    if runtime.num_workers is not None:
        return runtime.num_workers
    return default_num_workers(images_in_memory, num_processes)


def describe_choice(execution: Execution) -> str:
    """One line for the person: what will be computed where, and in which precision."""
    device, dtype, conv1 = execution
    parts = [f"{str(dtype).removeprefix('torch.')} activations, float32 weights, channels-last"]
    if conv1 == "space_to_depth":
        parts.append("conv1 by space-to-depth")
    if device.type == "cuda":
        return f"{', '.join(parts)}, on {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return f"{', '.join(parts)}, on {device.type}"
    parts.append(native.describe())
    fast = "has" if has_fast_bfloat16(device) else "has no"
    threads = torch.get_num_threads()
    return f"{', '.join(parts)}, on the CPU ({threads} threads); this processor {fast} fast bfloat16"

"""Whether Triton kernels can run here; and stand-ins under which their modules import where Triton is not installed.

Triton comes with torch's CUDA builds for Linux and is no requirement of this package. With TRITON_INTERPRET=1 in the
environment before this module is imported, kernels run on CPU tensors in Triton's interpreter, for tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

try:
    import triton as _triton  # pyright: ignore[reportMissingImports]
    import triton.language as _language  # pyright: ignore[reportMissingImports]
except ImportError:
    _triton = _language = None

HAS_TRITON = _triton is not None
tl: Any = _language
"""triton.language, or None."""
if TYPE_CHECKING:
    constexpr = Any
else:
    constexpr = getattr(tl, "constexpr", Any)
"""Marks a kernel's compile-time arguments."""


def jit(function: Callable[..., Any]) -> Any:
    """triton.jit; without Triton a kernel stays a plain function, and is never launched."""
    return function if _triton is None else _triton.jit(function)


INTERPRETING = HAS_TRITON and os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on", "y", "yes")
"""Kernels were made for the interpreter, which is slow and takes CPU tensors."""

_OLDEST_CAPABILITY = (8, 0)
"""Ampere: the first with bfloat16 arithmetic."""


@cache
def _is_supported_gpu(index: int) -> bool:
    return torch.cuda.get_device_capability(index) >= _OLDEST_CAPABILITY


def can_run(device: torch.device) -> bool:
    """Whether Triton kernels run on tensors of this device: CUDA from Ampere on, or the interpreter's CPU."""
    if not HAS_TRITON:
        return False
    if INTERPRETING:
        return device.type == "cpu"
    if device.type != "cuda" or torch.version.hip is not None or not torch.cuda.is_available():
        return False
    return _is_supported_gpu(torch.cuda.current_device() if device.index is None else device.index)


def is_available() -> bool:
    """Whether this process has a device for them."""
    return can_run(torch.device("cpu" if INTERPRETING else "cuda"))


def current_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """A context in which Triton launches on the tensor's device; it takes torch's current one otherwise."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is not less: the sides of Triton's blocks."""
    return 1 << max(0, number - 1).bit_length()


def divide_up(number: int, by: int) -> int:
    """The quotient rounded up."""
    return -(-number // by)

"""What this package changes in the process that calls it, and how it is put back.

A training needs settings that hold for the whole process: the precision of float32, the number of threads, the
allocator. In a notebook the process is the user's, so every public function puts back what it has changed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from alexnet.ops import native

try:
    import resource
except ImportError:  # Windows
    resource = None

Value = TypeVar("Value")


@contextmanager
def restored_settings() -> Iterator[None]:
    """Put back what the package changes in this process, however the block ends; also a decorator of functions.

    The block runs in `usual_modes`. What is put back: the precision of float32 (TF32 and bfloat16 products), torch's
    deterministic mode and number of threads, cuDNN's search for the fastest algorithm, `CUBLAS_WORKSPACE_CONFIG`, the
    compiled kernels in use, glibc's allocator and the limit of open files. Calls may be nested, and may overlap in
    several threads: the last one to end puts back what the first one found; the number of threads is put back by each
    call for its own thread. Signal handlers are put back by
    `stop_requested_by_signal`, the filter of Pillow's warnings by `alexnet.data.decode`. Global random generators are
    not used at all.

    Not put back exactly:
        glibc's allocator: its parameters cannot be read. It gets those that it chooses itself once a process has freed
            a block of 32 MiB; values that the user set with `mallopt` or an environment variable are lost.
        The limit of open files stays raised while more files are open than the old limit allows.
        The current CUDA device of a process that torchrun started: it is the process's own GPU. Reading the one before
            would take memory on a GPU that belongs to another process.
        What libraries do when they are imported (scikit-learn sets `KMP_DUPLICATE_LIB_OK`, SciPy adds filters of
            warnings): they rely on it for as long as they are loaded.
    """
    with ExitStack() as stack:
        # OpenMP keeps the number of threads for each calling thread, so no other call can put it back.
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        for setting in _SETTINGS:
            stack.enter_context(setting.restored())
        stack.enter_context(usual_modes())
        yield


@contextmanager
def usual_modes() -> Iterator[None]:
    """Inside, torch is in the modes of a new process: it records gradients and makes float32 tensors on the CPU.

    A network would not learn anything in the `torch.no_grad` of a notebook, and would learn something else in its
    `torch.autocast`.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_DEFAULT_DTYPE.restored())
        if torch.get_default_dtype() != torch.float32:
            torch.set_default_dtype(torch.float32)
        yield


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, float32 means float32, whatever the process allows otherwise."""
    with _FLOAT32.restored():
        use_exact_float32()
        yield


class _Found(Generic[Value]):
    """The value that a call found when it began."""

    def __init__(self, value: Value) -> None:
        self.value = value


class _Setting(Generic[Value]):
    """One setting of the process: how it is read and written, and the calls that will put it back."""

    def __init__(self, read: Callable[[], Value], write: Callable[[Value], Any]) -> None:
        self.read, self.write = read, write
        self._calls: list[_Found[Value]] = []
        self._lock = threading.Lock()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put the value back at the end, unless a call that began later is still running: that one does it then."""
        with self._lock:
            found = _Found(self.read())
            self._calls.append(found)
        try:
            yield
        finally:
            with self._lock:
                place = self._calls.index(found)
                del self._calls[place]
                if place < len(self._calls):
                    self._calls[place].value = found.value
                elif self.read() != found.value:
                    self.write(found.value)


# ---------------------------------------------------------------- precision of float32


class _Float32(NamedTuple):
    """Everything in torch that decides how float32 is multiplied; there is an old and a new set of functions."""

    precisions: tuple[str, ...]
    """Of `_PRECISIONS`; "none": as the one above it says."""
    matmul: str
    """`torch.get_float32_matmul_precision`, of the old set. It is stored apart from the new ones."""
    cudnn_allows_tf32: bool
    """`torch.backends.cudnn.allow_tf32`, of the old set, also stored apart."""


# Those that others inherit from come first, and `torch.backends` before all: assigning to
# `torch.backends.mkldnn.fp32_precision` changes that one instead (torch 2.13). It has to be read first, written last.
_BACKENDS: Any = torch.backends
_PRECISIONS: tuple[Any, ...] = (
    _BACKENDS,
    _BACKENDS.cudnn,  # of all CUDA libraries
    _BACKENDS.mkldnn,
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
)
_EXACT = _Float32(("none", "none", "none", "ieee", "none", "none", "none", "none", "none"), "highest", False)


def use_exact_float32() -> None:
    """Compute in float32 where float32 is asked for: TF32 has the mantissa of float16, bfloat16 has less."""
    _write_float32(_EXACT)


def _read_float32() -> _Float32:
    """The state itself. Torch's functions show what follows from it, and raise where the two sets disagree."""
    precisions = []
    for holder in _PRECISIONS:
        precisions.append(holder.fp32_precision)
        if precisions[-1] != "none":
            holder.fp32_precision = "none"  # now the ones below it, and the old functions, show their own values
    state = _Float32(tuple(precisions), torch.get_float32_matmul_precision(), _cudnn_allows_tf32())
    _write_precisions(state.precisions)
    return state


def _cudnn_allows_tf32() -> bool:
    """The flag of the old set, while all of the new set are "none"."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # it disagrees with "none"
        return True


def _write_float32(state: _Float32) -> None:
    # The old functions change values of the new set too, so these come second.
    torch.set_float32_matmul_precision(state.matmul)
    torch.backends.cudnn.allow_tf32 = state.cudnn_allows_tf32
    _write_precisions(state.precisions)


def _write_precisions(precisions: tuple[str, ...]) -> None:
    for holder, precision in zip(reversed(_PRECISIONS), reversed(precisions), strict=True):
        if holder.fp32_precision != precision:
            holder.fp32_precision = precision


# ---------------------------------------------------------------- memory and files

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_MMAP_MAX = 65536
_MMAP_THRESHOLD = 4 * 2**20 * ctypes.sizeof(ctypes.c_long)
"""DEFAULT_MMAP_THRESHOLD_MAX of malloc.c: where glibc's own adjustment ends, with twice as much for trimming."""
_keeps_freed_memory = False


def keep_freed_memory(wanted: bool = True) -> None:
    """Tell glibc to keep freed blocks rather than return them to the kernel, or no longer.

    Every step frees and allocates the same few hundred megabytes; without this each step pays for faulting all those
    pages in again. Elsewhere than on Linux with glibc it does nothing.
    """
    global _keeps_freed_memory
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        if wanted:
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        else:
            # Any call ends the adjustment for good. Without a threshold every block of 128 KiB and more would be mapped
            # anew from then on: a tensor of 4 MB took 25 times as long to make.
            libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
            libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
            libc.mallopt(_M_TRIM_THRESHOLD, 2 * _MMAP_THRESHOLD)
        _keeps_freed_memory = wanted


def return_freed_memory() -> None:
    """Give what `keep_freed_memory` has kept back to the system, as far as nobody uses it: at the end of a run.

    Without this, several trainings in one process take more and more, since blocks of one do not fit the next.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _read_open_files() -> int | None:
    """How many files this process may have open; `alexnet.data.shards` raises it for sets of many shards."""
    return None if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _write_open_files(limit: int | None) -> None:
    if resource is None or limit is None:
        return
    with suppress(OSError):
        if limit == resource.RLIM_INFINITY or len(os.listdir("/dev/fd")) < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


# ---------------------------------------------------------------- all of them


def _write_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FLOAT32 = _Setting(_read_float32, _write_float32)
_DEFAULT_DTYPE = _Setting(torch.get_default_dtype, torch.set_default_dtype)
_SETTINGS: tuple[_Setting[Any], ...] = (
    _FLOAT32,
    _Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    _Setting(lambda: torch.backends.cudnn.benchmark, lambda value: setattr(torch.backends.cudnn, "benchmark", value)),
    _Setting(lambda: os.environ.get(_WORKSPACE), lambda value: _write_environment(_WORKSPACE, value)),
    _Setting(lambda: native.AVAILABLE, native.use),
    _Setting(lambda: _keeps_freed_memory, keep_freed_memory),
    _Setting(_read_open_files, _write_open_files),
)

"""The CPU kernels in C (kernels.c), built when the package is installed and called with pointers.

Where they could not be built (no compiler, Windows) `AVAILABLE` is false and plain torch does the same work more
slowly. ALEXNET_NATIVE=0 in the environment leaves them unused.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from alexnet.ops.block import Block as BlockRecord
    from alexnet.ops.chunked_norm import Norm as NormRecord

ABI = 2
"""Of kernels.c, which has the same number: to be raised in both with every change of a function or its arguments."""
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
NO_GRADIENT = 255
"""Marks an output of a pool that the ReLU after it stops."""


class _Norm(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_int32),
        ("towers", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("beta", ctypes.c_float),
        ("k", ctypes.c_float),
    ]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("height", "width", "channels", "pool_size", "pool_stride")),
        *((name, ctypes.c_int64) for name in ("pooled_height", "pooled_width")),
        ("norm", _Norm),
        ("spatial", _Norm),
        ("relu_first", ctypes.c_int32),
        ("relu_last", ctypes.c_int32),
    ]


class _Update(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "velocity", "gradient", "copy")),
        ("length", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("momentum", "decay", "rate", "step")),
        ("bfloat16_gradient", ctypes.c_int32),
    ]


class _Images(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("crops", "shift", "mean", "offsets", "flips")),
        *((name, ctypes.c_int64) for name in ("height", "width", "mean_height", "mean_width")),
        ("scale", ctypes.c_float * 3),
        ("bgr", ctypes.c_int32),
        ("bfloat16", ctypes.c_int32),
        ("images", ctypes.c_void_p),
    ]


class _Library(NamedTuple):
    functions: ctypes.CDLL
    parallel: ctypes.c_void_p
    instruction_set: int


_OTHER_VERSION = "those built here are of another version; rebuild: python setup.py build_ext --inplace"


def _load() -> tuple[_Library | None, str]:
    """The kernels; or None, and what is wrong with those that were built."""
    if os.environ.get("ALEXNET_NATIVE") == "0":
        return None, ""
    folder = Path(__file__).parent
    files = [folder / f"_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    built = next((file for file in files if file.is_file()), None)
    if built is None:
        return None, ""
    try:
        functions = ctypes.CDLL(str(built))
        if functions.alexnet_abi() != ABI:
            return None, _OTHER_VERSION
        functions.alexnet_block_forward.argtypes = [
            ctypes.POINTER(_Block), ctypes.c_int64, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        functions.alexnet_block_backward.argtypes = [
            ctypes.POINTER(_Block), ctypes.c_int64, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        functions.alexnet_update.argtypes = [ctypes.POINTER(_Update), ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
        functions.alexnet_images.argtypes = [
            ctypes.POINTER(_Images), ctypes.c_int64, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        functions.alexnet_crop.argtypes = [
            ctypes.c_void_p, *[ctypes.c_int64] * 7, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        functions.alexnet_resample.argtypes = [
            ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        instruction_set = functions.alexnet_instruction_set()
    except AttributeError:  # a function is missing
        return None, _OTHER_VERSION
    except OSError as error:  # built for another machine
        return None, f"those built here cannot be loaded: {error}"
    return _Library(functions, _thread_team(), instruction_set), ""


def _thread_team() -> ctypes.c_void_p:
    """libgomp's way of running a function on the threads that torch's own kernels use; null: one thread."""
    try:
        # A second pool of threads would fight with torch's, which wait for work without sleeping.
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except (AttributeError, OSError, TypeError):
        return ctypes.c_void_p(None)


_library, _reason = _load()
AVAILABLE = _library is not None
"""Whether the kernels were built, can be loaded, and are wanted."""


def use(wanted: bool) -> None:
    """Use the kernels (where they are) or leave them unused, in this process."""
    global AVAILABLE
    AVAILABLE = wanted and _library is not None


def describe() -> str:
    """For people: what the kernels were chosen to run on."""
    if AVAILABLE:
        return f"{INSTRUCTION_SETS[_loaded().instruction_set]} kernels"
    return f"no compiled kernels ({_reason})" if _reason else "no compiled kernels"


def takes(maps: Tensor) -> bool:
    """Whether the kernels work on such maps: on the CPU, float32 or bfloat16, not empty."""
    return maps.device.type == "cpu" and maps.dtype in (torch.float32, torch.bfloat16) and AVAILABLE


def block_forward(block: BlockRecord, maps: Tensor, outputs: Tensor, winners: Tensor) -> None:
    """Fill `outputs` and, where the block has a pool, `winners`; all are dense channels-last."""
    library = _loaded()
    status = library.functions.alexnet_block_forward(
        _c_block(block, maps.shape[1:], outputs.shape[2:]),
        len(maps),
        maps.dtype == torch.bfloat16,
        maps.data_ptr(),
        outputs.data_ptr(),
        winners.data_ptr() if winners.numel() else None,
        library.instruction_set,
        library.parallel,
        torch.get_num_threads(),
    )
    _check(status)


def block_backward(block: BlockRecord, maps: Tensor, grad_outputs: Tensor, winners: Tensor, grad_maps: Tensor) -> None:
    """Fill `grad_maps`; all are dense channels-last."""
    library = _loaded()
    status = library.functions.alexnet_block_backward(
        _c_block(block, maps.shape[1:], grad_outputs.shape[2:]),
        len(maps),
        maps.dtype == torch.bfloat16,
        maps.data_ptr(),
        grad_outputs.data_ptr(),
        winners.data_ptr() if winners.numel() else None,
        grad_maps.data_ptr(),
        library.instruction_set,
        library.parallel,
        torch.get_num_threads(),
    )
    _check(status)


def updates(weight: Tensor, velocity: Tensor, gradient: Tensor) -> bool:
    """Whether `update` works on these: float32 weights on the CPU, all dense and in one layout."""
    return (
        AVAILABLE
        and weight.device.type == "cpu"
        and weight.dtype == velocity.dtype == torch.float32
        and gradient.dtype in (torch.float32, torch.bfloat16)
        and weight.stride() == velocity.stride() == gradient.stride()
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
    )


def update(
    weight: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    copy: Tensor | None,
    momentum: float,
    decay: float,
    rate: float,
    step: float,
) -> None:
    """velocity <- momentum * velocity - decay * weight - rate * gradient; weight <- weight + step * velocity.

    copy: bfloat16, receives the updated weights.
    """
    library = _loaded()
    arguments = _Update(
        weight.data_ptr(),
        velocity.data_ptr(),
        gradient.data_ptr(),
        None if copy is None else copy.data_ptr(),
        weight.numel(),
        momentum,
        decay,
        rate,
        step,
        gradient.dtype == torch.bfloat16,
    )
    status = library.functions.alexnet_update(
        ctypes.byref(arguments), library.instruction_set, library.parallel, torch.get_num_threads()
    )
    _check(status)


def images(
    crops: Tensor,
    shift: Tensor | None,
    mean: Tensor,
    offsets: Tensor,
    flips: Tensor | None,
    scale: Sequence[float],
    dtype: torch.dtype,
    *,
    bgr: bool,
) -> Tensor:
    """(pixel + shift - mean) * scale: (N, 3, h, w) channels-last in `dtype`, float32 or bfloat16.

    crops: (N, h, w, 3) uint8; shift: (N, 3); mean: (S, S, 3) float32; offsets: (N, 2) int64, where in the mean each
    crop lies; flips: (N,) bool, crops whose part of the mean is reflected; scale: a factor for each channel. Raises
    ValueError where they do not fit each other.
    """
    library = _loaded()
    _check_images(crops, shift, mean, offsets, flips)
    n, height, width, _ = crops.shape
    outputs = torch.empty(crops.shape, dtype=dtype)
    given = (crops, shift, mean, offsets, flips)
    kinds = (torch.uint8, torch.float32, torch.float32, torch.int64, torch.bool)
    # Held until the kernel has run: it gets addresses only.
    held = [None if one is None else one.to("cpu", kind).contiguous() for one, kind in zip(given, kinds, strict=True)]
    arguments = _Images(
        *(None if tensor is None else tensor.data_ptr() for tensor in held),
        height,
        width,
        mean.shape[0],
        mean.shape[1],
        (ctypes.c_float * 3)(*scale),
        bgr,
        dtype == torch.bfloat16,
        outputs.data_ptr(),
    )
    status = library.functions.alexnet_images(
        ctypes.byref(arguments), n, library.instruction_set, library.parallel, torch.get_num_threads()
    )
    _check(status)
    return outputs.permute(0, 3, 1, 2)


def _check_images(crops: Tensor, shift: Tensor | None, mean: Tensor, offsets: Tensor, flips: Tensor | None) -> None:
    """The kernel believes what it is told: what it would read has to be there."""
    if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != torch.uint8:
        raise ValueError(f"crops of the shape {tuple(crops.shape)} and {crops.dtype} are not (N, h, w, 3) uint8")
    n, height, width, _ = crops.shape
    for name, tensor, shape in (("colour shifts", shift, (n, 3)), ("offsets", offsets, (n, 2)), ("flips", flips, (n,))):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} of the shape {tuple(tensor.shape)} are not {shape}, as {n} crops need them")
    if mean.ndim != 3 or mean.shape[2] != 3:
        raise ValueError(f"the pixels of a mean image of the shape {tuple(mean.shape)} are not three colours")
    rows, columns = mean.shape[0] - height, mean.shape[1] - width
    if n and (int(offsets.min()) < 0 or int(offsets[:, 0].max()) > rows or int(offsets[:, 1].max()) > columns):
        raise ValueError(
            f"crops of {height} x {width} px at these offsets do not lie in the mean image of {tuple(mean.shape[:2])}"
        )


def _loaded() -> _Library:
    assert _library is not None, "the kernels are not there; ask AVAILABLE first"
    return _library


def _check(status: int) -> None:
    if status == 1:
        raise MemoryError("no memory for the working rows of a kernel")
    if status:
        raise ValueError("a kernel was asked for an impossible record or size; nothing was computed")


@functools.lru_cache(maxsize=256)
def _c_block(block: BlockRecord, maps: tuple[int, ...], pooled: tuple[int, ...]) -> ctypes._Pointer[_Block]:
    channels, height, width = maps
    size, stride, _ = block.pool or (0, 0, False)
    fields = (height, width, channels, size, stride, *pooled)
    record = _Block(*fields, _c_norm(block.norm), _c_norm(block.spatial), block.relu_first, block.relu_last)
    return ctypes.pointer(record)


def _c_norm(norm: NormRecord | None) -> _Norm:
    if norm is None:
        return _Norm(0, 1, 0, 0, 1)
    return _Norm(norm.size, 1 if norm.towers is None else norm.towers, norm.scale, norm.beta, norm.k)

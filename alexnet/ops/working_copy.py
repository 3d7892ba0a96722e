"""bfloat16 copies of float32 weights, made once an update instead of once a use.

Nearly all parameters are in three matrices. Casting them for every forward pass, and their gradients back, moves more
memory than multiplying by them. Inside `working_copies` the layers compute with copies, which the optimiser writes
together with the weights it updates. Outside, and for a weight that was changed since, they cast.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_MINIMUM_ELEMENTS = 1 << 20
"""Smaller weights are cast when they are used: that costs nothing worth a second copy."""


class _Copy(NamedTuple):
    tensor: Tensor
    version: int
    """Of the weight when the copy was made."""


class _Use(threading.local):
    depth = 0


_use = _Use()


@contextmanager
def working_copies(weights: Iterable[Tensor], dtype: torch.dtype, *, keep: bool) -> Iterator[None]:
    """Let the layers compute with copies of the large weights in `dtype` (none where that is the weights' own).

    keep: copies that are made here stay for the next time. Only for one who sees every change of the weights: some of
    torch's fused optimisers change them without telling.
    """
    made = [weight for weight in weights if _is_wanted(weight, dtype) and working_copy(weight, dtype) is None]
    for weight in made:
        note_working_copy(weight, weight.detach().to(dtype))
    _use.depth += 1
    try:
        yield
    finally:
        _use.depth -= 1
        if not keep:
            for weight in made:
                del weight.working_copy  # type: ignore[attr-defined]


def _is_wanted(weight: Tensor, dtype: torch.dtype) -> bool:
    return weight.dtype != dtype and weight.numel() >= _MINIMUM_ELEMENTS


def note_working_copy(weight: Tensor, copy: Tensor) -> None:
    """Tell that `copy` holds the present values of `weight`."""
    weight.working_copy = _Copy(copy, weight._version)  # type: ignore[attr-defined]


def working_copy(weight: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The copy in `dtype`, if there is one and the weight has not changed since."""
    held: _Copy | None = getattr(weight, "working_copy", None)
    if held is None or held.version != weight._version:
        return None
    matches = held.tensor.dtype == dtype and held.tensor.device == weight.device
    return held.tensor if matches else None


def in_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in the dtype a layer computes in; gradients reach the weight itself.

    Raises TypeError for a dtype that is not floating point: the weights would be cut off to whole numbers.
    """
    if not isinstance(dtype, torch.dtype):  # a proxy of torch.fx: what it traces computes in one dtype
        return weight
    if not dtype.is_floating_point:
        raise TypeError(f"the layers compute in floating point, not in {dtype}; convert with .float()")
    copy = None
    if weight.dtype != dtype and not torch.compiler.is_compiling() and _use.depth:
        copy = working_copy(weight, dtype)
    if copy is None:
        return weight.to(dtype)
    return _StandIn.apply(weight, copy) if weight.requires_grad and torch.is_grad_enabled() else copy


class _StandIn(torch.autograd.Function):
    """The copy forward; backward the gradient goes to the weight as it is (its grad_dtype says in which dtype)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        return copy.view_as(copy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad_outputs[0], None


def set_gradient_dtype(weight: Tensor, dtype: torch.dtype) -> None:
    """Let `.grad` be kept in `dtype` from the next backward pass on.

    A bfloat16 gradient of one backward pass has been rounded already; keeping it so loses nothing. Sums over several
    passes need float32.
    """
    if hasattr(weight, "grad_dtype") and weight.grad is None:
        weight.grad_dtype = dtype

"""The update of a parameter as one Triton kernel: each number is read and written once.

It reads a float32 weight and velocity and a gradient of either dtype, and writes weight, velocity and, where asked, a
bfloat16 copy of the weight for the next forward pass: 22 bytes a parameter with a bfloat16 gradient, all of it memory
traffic. The rates may lie on the device, so that a captured CUDA graph does not freeze them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alexnet.ops.triton_runtime import can_run, constexpr, current_device_of, divide_up, jit, tl

Rule = Literal["krizhevsky_2012", "sgd"]

_BLOCK = 2048


def supports(weight: Tensor) -> bool:
    """Whether the kernel updates this parameter: float32 and dense, on a device with Triton."""
    return weight.dtype == torch.float32 and _is_dense(weight) and can_run(weight.device)


def update_parameter(
    weight: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    *,
    lr: float | Tensor,
    momentum: float,
    weight_decay: float,
    rule: Rule = "krizhevsky_2012",
    shadow: Tensor | None = None,
) -> None:
    """Update weight and velocity in place, by a rule of `training.optimizer.MomentumSGD`::

        krizhevsky_2012:  v <- momentum * v - weight_decay * lr * w - lr * g;  w <- w + v
        sgd:              v <- momentum * v - weight_decay * w - g;            w <- w + lr * v

    weight: one that `supports` accepts. gradient: float32 or bfloat16, any strides. lr: a number, or 1 float32 element
    on the weight's device, read when the kernel runs. shadow: a bfloat16 tensor like the weight, which gets its values.
    """
    gradient = _laid_out_as(weight, gradient)
    assert velocity.stride() == weight.stride() and velocity.dtype == torch.float32, (
        "the velocity is not like its weight"
    )
    assert shadow is None or shadow.stride() == weight.stride(), "the shadow is not like its weight"
    if weight.numel() == 0:
        return
    with current_device_of(weight):
        _update[(divide_up(weight.numel(), _BLOCK),)](
            weight, velocity, gradient, weight if shadow is None else shadow, lr, momentum, weight_decay,
            weight.numel(), SGD=rule == "sgd", DECAY=weight_decay != 0, SHADOW=shadow is not None,
            LR_ON_DEVICE=isinstance(lr, Tensor), BLOCK=_BLOCK, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip


def update_parameter_reference(
    weight: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    *,
    lr: float | Tensor,
    momentum: float,
    weight_decay: float,
    rule: Rule = "krizhevsky_2012",
    shadow: Tensor | None = None,
) -> None:
    """`update_parameter` in torch's operations, for any device; with a tensor lr it waits for nothing either."""
    gradient = gradient.to(weight.dtype)
    if rule == "sgd":
        velocity.mul_(momentum).sub_(gradient)
        velocity.sub_(weight, alpha=weight_decay)
        weight.add_(velocity * lr)
    else:
        velocity.mul_(momentum).sub_(gradient * lr)
        if weight_decay:
            velocity.sub_(weight * (lr * weight_decay))
        weight.add_(velocity)
    if shadow is not None:
        shadow.copy_(weight)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the tensor's elements fill a stretch of memory, in whatever order."""
    return tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def _laid_out_as(weight: Tensor, gradient: Tensor) -> Tensor:
    if gradient.stride() == weight.stride():
        return gradient
    # cuDNN and autograd may choose another layout for a gradient, above all where an extent is 1.
    return torch.empty_like(weight, dtype=gradient.dtype).copy_(gradient)


@jit
def _update(
    weight_pointer, velocity_pointer, gradient_pointer, shadow_pointer, lr, momentum, weight_decay, num_elements,
    SGD: constexpr, DECAY: constexpr, SHADOW: constexpr, LR_ON_DEVICE: constexpr, BLOCK: constexpr,
):  # fmt: skip
    if LR_ON_DEVICE:
        lr = tl.load(lr)
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < num_elements
    weight = tl.load(weight_pointer + offsets, mask=mask)
    velocity = tl.load(velocity_pointer + offsets, mask=mask)
    gradient = tl.load(gradient_pointer + offsets, mask=mask).to(tl.float32)
    # Fused where torch's kernels fuse, and nowhere else, so that the bits can agree.
    velocity = momentum * velocity
    if SGD:
        velocity = velocity - gradient
        if DECAY:
            velocity = tl.fma(weight, -weight_decay, velocity)
        weight = tl.fma(velocity, lr, weight)
    else:
        velocity = tl.fma(gradient, -lr, velocity)
        if DECAY:
            velocity = tl.fma(weight, -lr * weight_decay, velocity)
        weight = weight + velocity
    tl.store(velocity_pointer + offsets, velocity, mask=mask)
    tl.store(weight_pointer + offsets, weight, mask=mask)
    if SHADOW:
        tl.store(shadow_pointer + offsets, weight.to(tl.bfloat16), mask=mask)

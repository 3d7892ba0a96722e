"""Data parallelism: the same network in every process, each with its part of the batch, and one sum of gradients."""

# No postponed annotations here: DDP looks at those of the hook.
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from alexnet.evaluation.evaluator import evaluation_mode

_BUCKET_MB = 64
"""Gradients travel in pieces of this size, each as soon as it is complete. The fully-connected layers hold 96 % of the
weights and are first in the backward pass: fc6 (151 MB) and fc7 (67 MB) fill pieces of their own, which travel while
the convolutions are still at work; the convolutions' 9 MB go last, in one piece."""


def replicate(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The model, with the main process's weights, as one of a set whose gradients are summed.

    example: (1, 3, H, W) inputs on the model's device, in the dtype it computes in. To be called again whenever other
    parameters are frozen; with all of them frozen there is nothing to sum, and the model itself is returned.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    replicated = DistributedDataParallel(model, bucket_cap_mb=_BUCKET_MB, gradient_as_bucket_view=True)
    # The loss is divided by the size of the whole batch already, so that gradients are summed, not averaged.
    replicated.register_comm_hook(None, _sum)  # type: ignore[arg-type]
    _settle_buckets(replicated, example)
    return replicated


def _sum(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[attr-defined]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def _settle_buckets(replicated: DistributedDataParallel, example: torch.Tensor) -> None:
    """Run one gradient through it and throw it away.

    After its first backward pass DDP arranges the buckets anew, in the order in which gradients became ready; a sum's
    last bit may depend on the place in a bucket. A resumed run must not have one step in another arrangement.
    """
    with evaluation_mode([replicated]):  # no dropout is drawn, and batch norm's statistics stay
        for _ in range(2):  # the second forward pass is where the new arrangement is made
            replicated(example).sum().backward()
    replicated.zero_grad(set_to_none=True)

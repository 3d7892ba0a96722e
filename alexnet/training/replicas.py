"""Data parallelism: the same network in every process, each with its part of the batch, and one sum of gradients."""

# No postponed annotations here: DDP looks at those of the hook.
import gc
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet
from alexnet.models.architecture import INPUT_CHANNELS
from alexnet.runtime.device import Execution


class OneProcess:
    """One process alone, and what the trainer asks of every way in which several share the work of a step.

    The whole network stays in every process, for evaluations and checkpoints, which so do not depend on how many
    processes there are or how they share. `trained` has what the optimizer changes, `network` computes the logits.
    """

    sums_gradients = False
    """Whether gradients of several processes are added up."""

    def __init__(self, model: AlexNet) -> None:
        self.model = model
        self.trained: nn.Module = model
        self.network: nn.Module = model

    def answered(self, rows: slice) -> slice:
        """Of the rows that the network is given (as a slice with a start and a stop), those whose logits it returns."""
        return rows

    def own_masks(self, masks: Mapping[str, Tensor], rows: range) -> dict[str, Tensor]:
        """What this process needs of the dropout masks (B, features) of a batch of which it reads `rows`."""
        return {name: mask[rows.start : rows.stop] for name, mask in masks.items()}

    def apart(self) -> AbstractContextManager[object]:
        """In it gradients are added up and not exchanged yet: for all micro-batches but the last."""
        return nullcontext()

    def frozen_changed(self) -> None:
        """Called when other parameters learn than before."""

    def gather(self) -> None:
        """Bring what has been trained into the whole network. All processes call it."""

    def scatter(self) -> None:
        """Take what is to be trained from the whole network."""

    def gather_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer's state as that of one process alone. All processes call it."""
        return optimizer.state_dict()

    def scatter_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Restore what `gather_optimizer` gave."""
        optimizer.load_state_dict(state)


class Replicas(OneProcess):
    """Every process has the whole network and a part of the images."""

    sums_gradients = True

    def __init__(self, model: AlexNet, execution: Execution) -> None:
        super().__init__(model)
        self._example = example_of(model, execution)
        self.frozen_changed()

    @override
    def frozen_changed(self) -> None:
        # The replica before has to be gone before there is another: each listens to the gradients of the model.
        self.network = self.model
        gc.collect()
        self.network = replicate(self.model, self._example)

    @override
    def apart(self) -> AbstractContextManager[object]:
        return without_sync(self.network)

    @override
    def gather(self) -> None:
        share_buffers(self.model.buffers())


def share_buffers(buffers: Iterable[Tensor]) -> None:
    """Give every process the main one's: a batch norm has statistics of the images that its process has seen."""
    for buffer in buffers:
        dist.broadcast(buffer, src=0)


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


def example_of(model: AlexNet, execution: Execution) -> Tensor:
    """One image of zeros as the network takes it in a step."""
    side = model.image_size
    return torch.zeros(1, INPUT_CHANNELS, side, side, device=execution.device, dtype=execution.dtype)


def without_sync(network: nn.Module) -> AbstractContextManager[object]:
    """In it a replica keeps its gradients for itself; they go with those of the next backward pass."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

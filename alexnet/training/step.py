"""One weight update: forward, loss, backward, update. No logging, no input or output, no wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.ops.working_copy import set_gradient_dtype, working_copies, working_copy
from alexnet.training.optimizer import MomentumSGD
from alexnet.training.replicas import OneProcess


@dataclass(frozen=True)
class StepResult:
    """What a step measured; both stay on the device until somebody reads them."""

    loss: torch.Tensor
    """() float32: summed loss of this process's images over the size of the whole batch."""
    num_wrong: torch.Tensor
    """() int64: images of this process's part whose best guess was wrong."""


def train_step(
    model: nn.Module,
    optimizer: MomentumSGD,
    batch: Batch,
    *,
    preprocessing: Preprocessing,
    dropout_masks: Mapping[str, torch.Tensor],
    micro_batch_size: int,
    label_smoothing: float,
    device: torch.device,
    dtype: torch.dtype,
    sharing: OneProcess | None = None,
    batch_size: int | None = None,
) -> StepResult:
    """Update the weights once on a batch, of which this process has B images.

    The gradient is that of the mean loss over the whole batch (S: scale 1/numCases), summed over micro-batches and
    over processes. dropout_masks: layer name -> (B, features) bool. sharing: how processes share the step; None: there
    is one. batch_size: images over all processes; None: B.
    """
    # A parameter that is kept in parts is put together and cast by FSDP.
    weights = [weight for weight in model.parameters() if not hasattr(weight, "to_local")]
    optimizer.zero_grad(set_to_none=True)

    def logits_of(rows: slice) -> torch.Tensor:
        images = batch.images(rows, preprocessing, device, dtype)
        return model(images, {name: mask[rows] for name, mask in dropout_masks.items()})

    labels = batch.labels.to(device, non_blocking=True)
    alone = sharing is None or not sharing.sums_gradients
    with working_copies(weights, dtype, keep=True):
        for weight in weights:
            # Gradients are summed over micro-batches and processes in float32.
            whole = micro_batch_size >= len(labels) and alone
            narrow = whole and working_copy(weight, dtype) is not None
            set_gradient_dtype(weight, dtype if narrow else weight.dtype)
        result = backward(
            logits_of,
            labels,
            micro_batch_size,
            label_smoothing,
            batch_size=batch_size,
            apart=nullcontext if sharing is None else sharing.apart,
            answered=None if sharing is None else sharing.answered,
        )
        optimizer.step()
    return result


def backward(
    logits_of: Callable[[slice], torch.Tensor],
    labels: torch.Tensor,
    micro_batch_size: int,
    label_smoothing: float,
    *,
    batch_size: int | None = None,
    apart: Callable[[], AbstractContextManager[object]] = nullcontext,
    answered: Callable[[slice], slice] | None = None,
) -> StepResult:
    """The gradients of the mean loss over a batch, one micro-batch after the other.

    logits_of: rows of this process's part of the batch -> their logits (n, C); labels: (B,) of the part, on the device.
    batch_size: images of the whole batch; None: B. apart: in it processes do not exchange gradients, which they do once
    a batch, with the last micro-batch. answered: rows -> those whose logits `logits_of` returns; None: all.
    """
    loss_sum = torch.zeros((), device=labels.device)
    num_wrong = torch.zeros((), dtype=torch.int64, device=labels.device)
    for start in range(0, len(labels), micro_batch_size):
        rows = slice(start, min(start + micro_batch_size, len(labels)))
        with nullcontext() if rows.stop == len(labels) else apart():
            logits = logits_of(rows).float()
            rows = rows if answered is None else answered(rows)
            losses = F.cross_entropy(logits, labels[rows], label_smoothing=label_smoothing, reduction="sum")
            loss = losses / (batch_size or len(labels))
            if loss.requires_grad:  # not while a schedule has every layer frozen
                loss.backward()
        loss_sum += loss.detach()
        num_wrong += (logits.detach().argmax(dim=1) != labels[rows]).sum()
    return StepResult(loss_sum, num_wrong)

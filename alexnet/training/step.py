"""One weight update: forward, loss, backward, update. No logging, no input or output, no wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.ops.working_copy import set_gradient_dtype, working_copies, working_copy
from alexnet.training.optimizer import MomentumSGD


@dataclass(frozen=True)
class StepResult:
    """What a step measured; both stay on the device until somebody reads them."""

    loss: torch.Tensor
    """() float32: mean loss over the batch."""
    num_wrong: torch.Tensor
    """() int64: images of the batch whose best guess was wrong."""


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
) -> StepResult:
    """Update the weights once on a batch of B images.

    The gradient is that of the mean loss over the batch (S: scale 1/numCases), summed over micro-batches.
    dropout_masks: layer name -> (B, features) bool.
    """
    weights = list(model.parameters())
    optimizer.zero_grad(set_to_none=True)

    def logits_of(rows: slice) -> torch.Tensor:
        images = batch.images(rows, preprocessing, device, dtype)
        return model(images, {name: mask[rows] for name, mask in dropout_masks.items()})

    labels = batch.labels.to(device, non_blocking=True)
    with working_copies(weights, dtype, keep=True):
        for weight in weights:
            # Gradients are summed over micro-batches in float32.
            narrow = micro_batch_size >= len(labels) and working_copy(weight, dtype) is not None
            set_gradient_dtype(weight, dtype if narrow else weight.dtype)
        result = backward(logits_of, labels, micro_batch_size, label_smoothing)
        optimizer.step()
    return result


def backward(
    logits_of: Callable[[slice], torch.Tensor], labels: torch.Tensor, micro_batch_size: int, label_smoothing: float
) -> StepResult:
    """The gradients of the mean loss over a batch, one micro-batch after the other.

    logits_of: rows of the batch -> their logits (n, C); labels: (B,) on the device.
    """
    loss_sum = torch.zeros((), device=labels.device)
    num_wrong = torch.zeros((), dtype=torch.int64, device=labels.device)
    for start in range(0, len(labels), micro_batch_size):
        rows = slice(start, start + micro_batch_size)
        logits = logits_of(rows).float()
        losses = F.cross_entropy(logits, labels[rows], label_smoothing=label_smoothing, reduction="sum")
        loss = losses / len(labels)
        if loss.requires_grad:  # not while a schedule has every layer frozen
            loss.backward()
        loss_sum += loss.detach()
        num_wrong += (logits.detach().argmax(dim=1) != labels[rows]).sum()
    return StepResult(loss_sum, num_wrong)

"""Input gradients: which pixels would change the score of a class most (Simonyan et al., 2013, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet
from alexnet.visualize.subjects import classes_asked_for, repeated

NOISE = 0.15
"""Of SmoothGrad: standard deviation over the range of the inputs (Smilkov et al., 2017: 10 to 20 %)."""


def input_gradients(
    model: AlexNet,
    inputs: Tensor,
    class_index: int | Sequence[int] | None = None,
    *,
    samples: int = 1,
    seed: int = 0,
) -> Tensor:
    """The gradient of a class's logit by the inputs: (K, 3, h, w) float32 in RGB order, for each class asked for.

    inputs and class_index: as in `grad_cam`. samples: more than one averages the gradients of so many copies of the
    inputs with noise added (SmoothGrad), which takes away much of the grain; the noise follows from `seed`. The model
    stays as it is, and gets no gradients. Raises UserError for a class that does not exist.
    """
    classes = classes_asked_for(model, inputs, class_index)
    copies = repeated(inputs, len(classes))
    spread = (copies.amax(dim=(1, 2, 3), keepdim=True) - copies.amin(dim=(1, 2, 3), keepdim=True)) * NOISE
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(copies.shape, dtype=torch.float32, device=inputs.device)
    with evaluation_mode([model]), torch.enable_grad():
        for _ in range(samples):
            noisy = copies
            if samples > 1:
                noisy = copies + spread * torch.randn(copies.shape, generator=generator).to(copies)
            noisy = noisy.detach().requires_grad_()
            scores = model(noisy).gather(1, classes[:, None])
            (gradients,) = torch.autograd.grad(scores.sum(), [noisy])
            total += gradients.float()
    total /= samples
    return total.flip(1) if model.architecture.channel_order == "bgr" else total


def saliency(gradients: Tensor) -> Tensor:
    """Gradients (K, 3, h, w) as one number a pixel, (K, h, w): the largest of the three absolute values."""
    return gradients.abs().amax(dim=1)

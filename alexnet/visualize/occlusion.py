"""Occlusion: how the probability of a class falls while a patch hides a part of the image (Zeiler and Fergus, 2014)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from alexnet.errors import UserError
from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet


class Occlusion(NamedTuple):
    """What the network says with the patch at each of its places, rows first."""

    before: Tensor
    """(classes,) float32: probabilities for the whole image."""
    after: Tensor
    """(rows, columns, classes) float32: probabilities with the patch there."""
    tops: list[int]
    """Upper edge of the patch in each row, pixels; the columns have the same."""
    patch: int
    """Side of the patch, pixels."""
    stride: int
    """From one place to the next, pixels; the last step may be shorter."""
    size: int
    """Side of the image, pixels."""

    def fall(self, class_index: int) -> Tensor:
        """(size, size) float32: how much the class's probability falls, on average over the patches on each pixel."""
        falls = self.before[class_index] - self.after[:, :, class_index]
        covers = torch.zeros(self.size, len(self.tops), device=falls.device)
        for position, top in enumerate(self.tops):
            covers[top : top + self.patch, position] = 1
        counts = covers.sum(dim=1)
        return covers @ falls @ covers.T / torch.outer(counts, counts)


def occlude(
    model: AlexNet,
    inputs: Tensor,
    *,
    patch: int | None = None,
    stride: int | None = None,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> Occlusion:
    """Slide a patch over an image and ask the network each time.

    inputs: (1, 3, s, s) as `center_crop` makes them. Under the patch they are 0, the training images' mean: the grey
    that tells the network least. patch: its side in pixels, by default a seventh of the image; stride: pixels from one
    place to the next, by default a quarter of the patch. The last row and column of places end at the image's edge.
    on_progress(places done, places in all). Raises UserError for a patch that does not fit.
    """
    assert len(inputs) == 1, "one image at a time"
    size = inputs.shape[2]
    patch = max(1, size // 7) if patch is None else patch
    stride = max(1, patch // 4) if stride is None else stride
    if not (1 <= patch <= size and stride >= 1):
        raise UserError(
            f"a patch of {patch} pixels moved by {stride} does not fit an image of {size}; the patch can have 1 to "
            f"{size} pixels, the stride 1 and more"
        )
    if stride > patch:
        raise UserError(f"a stride of {stride} pixels would jump over parts of the image; at most the patch's {patch}")
    tops = [*range(0, size - patch, stride), size - patch]
    places = [(top, left) for top in tops for left in tops]
    after = []
    with evaluation_mode([model]), torch.inference_mode():
        before = model(inputs).float().softmax(dim=1)[0]
        for start in range(0, len(places), batch_size):
            part = places[start : start + batch_size]
            hidden = inputs.repeat(len(part), 1, 1, 1)
            for image, (top, left) in zip(hidden, part, strict=True):
                image[:, top : top + patch, left : left + patch] = 0
            after.append(model(hidden).float().softmax(dim=1))
            if on_progress is not None:
                on_progress(start + len(part), len(places))
    return Occlusion(before, torch.cat(after).unflatten(0, (len(tops), len(tops))), tops, patch, stride, size)

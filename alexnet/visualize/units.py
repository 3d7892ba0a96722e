"""The images that excite a unit most, and the part of each that the unit sees (Zeiler and Fergus, 2014, figure 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from alexnet.evaluation.features import layer_outputs
from alexnet.evaluation.image_list import Squares
from alexnet.models import AlexNet

if TYPE_CHECKING:
    from alexnet.data.preprocessing import Preprocessing


class StrongestImages(NamedTuple):
    """For each of a layer's C units (maps, or features) the k images with the highest output, highest first."""

    values: Tensor
    """(C, k) float32: the unit's output, of a map its highest."""
    indices: Tensor
    """(C, k) int64: the images' positions in their list."""
    rows: Tensor
    """(C, k) int64: where in the map it is highest; 0 for features."""
    columns: Tensor


def strongest_images(
    model: AlexNet,
    preprocessing: Preprocessing,
    batches: Iterable[Squares],
    layer: str,
    count: int,
    *,
    device: torch.device | str = "cpu",
) -> StrongestImages:
    """Look at the centre crops of all images in turn; each image counts once for a unit, however often it excites it.

    One batch is in memory at a time. `model` is on `device`, in evaluation; its mode is restored. Raises UserError for
    a name that is no layer.
    """
    kept: StrongestImages | None = None
    for indices, pixels in batches:
        outputs = layer_outputs(model, preprocessing, pixels, layer, device=device).cpu()
        width = outputs.shape[3] if outputs.ndim == 4 else 1
        values, places = outputs.flatten(2).max(dim=2) if outputs.ndim == 4 else (outputs, torch.zeros_like(outputs))
        places = places.long().T
        images = torch.from_numpy(indices).expand(len(places), -1)
        batch = StrongestImages(values.T, images, places // width, places % width)
        kept = _best(batch if kept is None else _joined(kept, batch), count)
    assert kept is not None, "there are no images"
    return kept


def _joined(first: StrongestImages, second: StrongestImages) -> StrongestImages:
    return StrongestImages(*(torch.cat(pair, dim=1) for pair in zip(first, second, strict=True)))


def _best(found: StrongestImages, count: int) -> StrongestImages:
    # Stable, so that of equal ones the earlier image comes first whatever the batches.
    order = found.values.argsort(dim=1, descending=True, stable=True)[:, :count]
    return StrongestImages(*(part.gather(1, order) for part in found))

"""The views of an image that an evaluation averages over (paper 4.1; paper.md section 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from alexnet.errors import UserError

Views = Literal["center", "flip", "ten_crop"]
VIEW_NAMES: tuple[str, ...] = get_args(Views)


@dataclass(frozen=True)
class View:
    """One crop of a square image: offsets of its top left corner in pixels, and whether it is mirrored."""

    top: int
    left: int
    flipped: bool


def view_crops(views: str, image_size: int, crop_size: int) -> list[View]:
    """The crops, of side `crop_size`, that `views` takes from a square of side `image_size` (both in pixels).

    center: the centre crop. flip: the centre crop and its mirror image. ten_crop: the four corners and the centre,
    each with its mirror image (paper 4.1; for 256 and 224 the offsets are 0, 16 and 32, S convdata_jpeg.py:226).
    Raises UserError for an unknown name or a crop larger than the square.
    """
    if crop_size > image_size or crop_size < 1:
        raise UserError(
            f"A network input of {crop_size} pixels cannot be cropped from images of {image_size} pixels; "
            f"set data.image_size to {crop_size} or more."
        )
    last, centre = image_size - crop_size, (image_size - crop_size) // 2
    if views == "center":
        return [View(centre, centre, False)]
    if views == "flip":
        return [View(centre, centre, flipped) for flipped in (False, True)]
    if views == "ten_crop":
        offsets = [(0, 0), (0, last), (centre, centre), (last, 0), (last, last)]
        return [View(top, left, flipped) for flipped in (False, True) for top, left in offsets]
    raise UserError(f"Unknown views {views!r}; choose one of {', '.join(VIEW_NAMES)}.")


def weighted_views(views: Sequence[View]) -> list[tuple[View, float]]:
    """The distinct views and their shares of the mean: where the crop is the whole image, ten are only two."""
    return [(view, count / len(views)) for view, count in Counter(views).items()]


def cut_views(squares: Tensor, views: Sequence[View], crop_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut every view out of every image.

    squares (N, S, S, 3) uint8 -> crops (N * V, crop, crop, 3) uint8, their offsets (N * V, 2) int64 (top, left) and
    flips (N * V,) bool: image by image, views in the order given. A mirrored view is mirrored here, before any mean is
    subtracted: the 2012 code subtracts one mean crop, itself never mirrored, from all views (paper.md 4.3).
    """
    crops = []
    for view in views:
        crop = squares[:, view.top : view.top + crop_size, view.left : view.left + crop_size]
        crops.append(crop.flip(2) if view.flipped else crop)
    offsets = torch.tensor([(view.top, view.left) for view in views], dtype=torch.int64, device=squares.device)
    flips = torch.tensor([view.flipped for view in views], device=squares.device)
    return torch.stack(crops, dim=1).flatten(0, 1), offsets.repeat(len(squares), 1), flips.repeat(len(squares))

"""A network, a layer of it and views: what makes features of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.evaluation.feature_files import FeatureRows
from alexnet.evaluation.features import last_hidden_layer, layer_outputs, network_digest
from alexnet.evaluation.image_list import ImageList, stream_squares
from alexnet.evaluation.views import VIEW_NAMES
from alexnet.models import AlexNet
from alexnet.models.architecture import layer_shapes
from alexnet.runtime.device import choose_device, default_num_workers

if TYPE_CHECKING:
    from alexnet.training.checkpoint import Checkpoint


class Extractor(NamedTuple):
    """A network, a layer of it and the views of an image that are averaged: everything that makes features."""

    checkpoint: Checkpoint
    model: AlexNet
    layer: str
    views: str
    device: torch.device
    batch_size: int = 128

    @property
    def preprocessing(self) -> Preprocessing:
        return self.checkpoint.preprocessing

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's outputs."""
        rows = layer_shapes(self.model.architecture, self.model.num_classes, self.model.image_size)
        return next(row.outputs for row in rows if row.layer.name == self.layer)

    def about(self, images: ImageList | None) -> dict[str, Any]:
        """Where features are from, as plain types."""
        return {
            "model": self.checkpoint.architecture.name,
            "network": network_digest(self.checkpoint),
            "step": self.checkpoint.step,
            "checkpoint": self.checkpoint.selection,
            "layer": self.layer,
            "shape": list(self.shape),
            "views": self.views,
            "image_size": self.preprocessing.image_size,
            "crop_size": self.preprocessing.crop_size,
            "images": None if images is None or images.given is None else list(images.given),
        }

    def rows(
        self,
        images: ImageList,
        on_skip: Callable[[str, str], None] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[FeatureRows]:
        """The features of all images that can be read, in order, a batch at a time."""
        batches = stream_squares(
            images,
            self.preprocessing.image_size,
            self.batch_size,
            num_workers=default_num_workers(images_in_memory=False),
            on_skip=on_skip,
            on_progress=on_progress,
        )
        for indices, pixels in batches:
            outputs = layer_outputs(
                self.model, self.preprocessing, pixels, self.layer,
                views=self.views, batch_size=self.batch_size, device=self.device,
            )  # fmt: skip
            chosen: list[int] = indices.tolist()
            yield FeatureRows(
                outputs.flatten(1).cpu().numpy(),
                [images.keys[i] for i in chosen],
                [images.splits[i] for i in chosen],
                images.labels[indices],
            )


def make_extractor(
    checkpoint: str | Path | Checkpoint,
    layer: str | None = None,
    views: str = "center",
    *,
    device: str = "auto",
    batch_size: int = 128,
) -> Extractor:
    """Check what is asked for, and load the network. Raises UserError for a bad checkpoint, layer or views."""
    from alexnet.training.checkpoint import build_model, load_checkpoint

    loaded = load_checkpoint(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    if views not in VIEW_NAMES:
        raise UserError(f"the views are {', '.join(VIEW_NAMES)}, not {views!r}")
    target = choose_device(device)
    model = build_model(loaded).to(target)
    layer = layer or last_hidden_layer(loaded.architecture)
    model.check_layers([layer])
    return Extractor(loaded, model, layer, views, target, batch_size)

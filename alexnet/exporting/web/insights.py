"""The network as the page in the browser asks it: guesses, where it looked, and what every layer makes of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from alexnet.data.preprocessing import Preprocessing
from alexnet.exporting.network import ImageClassifier
from alexnet.exporting.web.gradients import score_gradient
from alexnet.models import AlexNet
from alexnet.models.architecture import Dropout
from alexnet.models.receptive_field import receptive_fields
from alexnet.visualize import last_maps
from alexnet.visualize.placement import places_of_pixels

BEST_GUESS = -1
"""As a class: the one with the highest score."""


def shown_layers(model: AlexNet) -> list[str]:
    """The layers whose outputs are given. Dropout drops nothing in evaluation; at most it halves."""
    return [layer.name for layer in model.architecture.layers if not isinstance(layer, Dropout)]


class Insights(ImageClassifier):
    """Squares of pixels to everything that the page shows of them, in one pass."""

    def __init__(self, model: AlexNet, preprocessing: Preprocessing) -> None:
        """model: without gradients."""
        super().__init__(model, preprocessing)
        self.map_layer = last_maps(model.architecture)
        self.layer_names = shown_layers(model)
        self.output_names = ("probabilities", "heat", *self.layer_names)
        field = receptive_fields(model.architecture, model.image_size)[self.map_layer]
        side = model.activations(torch.zeros(1, 3, *[model.image_size] * 2), [self.map_layer])[self.map_layer].shape[2]
        self.spread = nn.Buffer(places_of_pixels(side, field, self.crop_size).to(torch.float32))

    def forward(self, images: Tensor, class_index: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """(N, image_size, image_size, 3) uint8 RGB and (N,) int32 -> what `output_names` says, float32.

        class_index: what the network is asked to look for, `BEST_GUESS` for its own first guess. heat: as `grad_cam`
        gives it, (N, crop_size, crop_size). The layers' outputs: as they are.
        """
        with parametrize.cached():  # packed weights are unpacked once, for both directions
            outputs = self.model.activations(self.inputs(images))
            logits = outputs[self.last_layer]
            asked = class_index.to(torch.int64)
            classes = torch.where(asked < 0, logits.argmax(dim=1), asked)
            maps = outputs[self.map_layer]
            gradients = score_gradient(self.model, outputs, self.map_layer, classes)
        heat = (gradients.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu()
        heat = self.spread @ heat @ self.spread.T
        return (logits.softmax(dim=1), heat, *(outputs[name] for name in self.layer_names))

"""Networks with a few maps in each layer: the layers are all there, the files are small."""

from __future__ import annotations

from dataclasses import replace

from alexnet.models import Architecture, get_architecture
from alexnet.models.architecture import Convolution, Linear

MAPS = {"conv1": 8, "conv2": 12, "conv3": 8, "conv4": 8, "conv5": 4}
FEATURES = {"fc6": 10, "fc7": 9}


def small(variant: str) -> Architecture:
    """The variant's record with narrow layers."""
    layers = []
    for layer in get_architecture(variant).layers:
        if isinstance(layer, Convolution):
            layer = replace(layer, channels=MAPS[layer.name])
        elif isinstance(layer, Linear) and layer.features is not None:
            layer = replace(layer, features=FEATURES[layer.name])
        layers.append(layer)
    return replace(get_architecture(variant), layers=tuple(layers))

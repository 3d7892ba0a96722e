"""Small networks, preprocessings and image sets whose results can be worked out by hand."""

import numpy as np
import torch
from torch import nn

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import ImageSet


class Scores(nn.Module):
    """A network given as a function from images (N, 3, h, w) to logits; `dropout` shows which mode it is in."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.function(images)


def linear(num_classes, crop_size, seed=0):
    """A random linear classifier with dropout on its inputs."""
    layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * crop_size**2, num_classes, bias=False))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        layers[2].weight.copy_(torch.randn(layers[2].weight.shape, generator=generator) / 400)
    return layers


def preprocessing(image_size, crop_size, mean_image=None, mean_mode="center_crop"):
    mean = torch.zeros(image_size, image_size, 3) if mean_image is None else mean_image
    return Preprocessing(image_size, crop_size, "pixels", "rgb", mean_mode, mean)


def random_images(count, size, num_classes, seed=0, on_demand=False):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, num_classes, count)
    keys = [f"image-{i}" for i in range(count)]
    if on_demand:
        return ImageSet(labels, keys, size, read=lambda i: array[i])
    return ImageSet(labels, keys, size, array=array)


def names(num_classes):
    return [f"class-{i}" for i in range(num_classes)]

"""Small networks with the parts of the large ones, quick enough to be asked many times."""

import torch

from alexnet.models import Architecture, build_network
from alexnet.models.architecture import Convolution, Dropout, Linear, MaxPool, ReLU, ResponseNorm, SpatialNorm

IMAGE_SIZE = 35
CLASSES = 4


def architecture(**changes):
    """Strides, groups, both norms, overlapping pools with ceil, padding on the right: everything but the size."""
    values = {
        "name": "small",
        "summary": "",
        "source": "",
        "image_size": IMAGE_SIZE,
        "pad_right_bottom": 1,
        "input_scale": "pixels",
        "channel_order": "rgb",
        "initialization": "torch_default",
        "layers": (
            Convolution("conv1", 8, kernel=5, stride=2),
            ResponseNorm("norm1", size=3, alpha=1e-2, beta=0.75, k=2.0, alpha_convention="mean", towers=2),
            MaxPool("pool1", size=3, stride=2, ceil_mode=True),
            ReLU("relu1"),
            Convolution("conv2", 8, kernel=3, padding=1, groups=2),
            ReLU("relu2"),
            SpatialNorm("cnorm2", size=3, alpha=1e-2, beta=0.75, k=1.0, alpha_convention="mean"),
            MaxPool("pool2", size=3, stride=2, ceil_mode=True),
            Linear("fc6", 12),
            ReLU("relu6"),
            Dropout("drop6", rate=0.5, scaling="original"),
            Linear("fc7", None),
        ),
        **changes,
    }
    return Architecture(**values)


def small_model(seed=0, **changes):
    return build_network(architecture(**changes), CLASSES, seed=seed).eval()


def random_inputs(count=1, size=IMAGE_SIZE, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))

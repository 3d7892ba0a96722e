"""What a trained network sees, as arrays: kernels, activations, and which pixels a class or a unit depends on.

Nothing here draws: `alexnet.reporting` makes pictures of these arrays, the web page its own.
"""

from alexnet.visualize.activations import layer_activations
from alexnet.visualize.grad_cam import grad_cam
from alexnet.visualize.inputs import CenterCrop, center_crop
from alexnet.visualize.kernels import Kernels, color_share, first_kernels, kernel_banks
from alexnet.visualize.subjects import last_maps, map_layers

__all__ = [
    "CenterCrop",
    "Kernels",
    "center_crop",
    "color_share",
    "first_kernels",
    "grad_cam",
    "kernel_banks",
    "last_maps",
    "layer_activations",
    "map_layers",
]

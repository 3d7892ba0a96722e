"""The network and its variants."""

from alexnet.models.alexnet import AlexNet, build_network
from alexnet.models.architecture import Architecture, minimum_image_size
from alexnet.models.initialization import SCHEMES, initialize
from alexnet.models.plain import to_plain
from alexnet.models.summary import Difference, LayerRow, compare, layer_table
from alexnet.models.variants import ARCHITECTURES, get_architecture

__all__ = [
    "ARCHITECTURES",
    "SCHEMES",
    "AlexNet",
    "Architecture",
    "Difference",
    "LayerRow",
    "build_network",
    "compare",
    "get_architecture",
    "initialize",
    "layer_table",
    "minimum_image_size",
    "to_plain",
]

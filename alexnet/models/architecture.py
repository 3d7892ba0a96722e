"""What a network is, as data: records of layers, and the arithmetic of their shapes. Nothing here needs torch."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from alexnet.errors import UserError

AlphaConvention = Literal["mean", "sum"]
"""How a normalisation's alpha is meant.

"mean": alpha times the mean of squares over the full window, so alpha / size on the sum across maps and
alpha / size**2 within a map (the 2012 source, Caffe, torch). "sum": alpha times the sum of squares (paper 3.3).
"""
DropoutScaling = Literal["original", "inverted"]
"""original: x * mask in training, (1 - rate) * x in evaluation (paper 4.2). inverted: x * mask / (1 - rate), then x."""

PoolDivisor = Literal["inside", "window"]
"""What an average pool divides the sum over a window by, where the window reaches over the edge of the map.

"inside": the number of positions inside the map (cuda-convnet since 2012-07-17, Caffe, torch). "window": always
size * size (cuda-convnet of 2011, `AvgPooler(sizeX * sizeX)`), so that the last row and column come out smaller.
"""

INPUT_CHANNELS = 3


@dataclass(frozen=True)
class Convolution:
    name: str
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Local:
    """A convolution whose weights and biases are not shared between positions (S: type=local)."""

    name: str
    channels: int
    kernel: int
    padding: int = 0


@dataclass(frozen=True)
class Linear:
    name: str
    features: int | None
    """None: the number of classes."""
    groups: int = 1
    """So many equal parts of the outputs, each of which sees its own part of the inputs."""


@dataclass(frozen=True)
class ReLU:
    name: str


@dataclass(frozen=True)
class Tanh:
    name: str


@dataclass(frozen=True)
class SiLU:
    """x * sigmoid(x). Not monotone: unlike ReLU and tanh it does not commute with max pooling."""

    name: str


@dataclass(frozen=True)
class ResponseNorm:
    """Local response normalisation across maps (paper 3.3), over `size` neighbouring maps of the same tower."""

    name: str
    size: int
    alpha: float
    beta: float
    k: float
    alpha_convention: AlphaConvention
    towers: int = 1


@dataclass(frozen=True)
class SpatialNorm:
    """Local response normalisation within each map, over size x size positions (S: type=rnorm)."""

    name: str
    size: int
    alpha: float
    beta: float
    k: float
    alpha_convention: AlphaConvention


@dataclass(frozen=True)
class MaxPool:
    name: str
    size: int
    stride: int
    ceil_mode: bool


@dataclass(frozen=True)
class AveragePool:
    """The sum over those positions of the window that lie inside the map, divided as `divisor` says."""

    name: str
    size: int
    stride: int
    ceil_mode: bool
    divisor: PoolDivisor = "inside"
    """The default is what records without this field mean."""


@dataclass(frozen=True)
class AdaptiveAveragePool:
    name: str
    size: int


@dataclass(frozen=True)
class BatchNorm:
    name: str
    eps: float
    momentum: float
    """Weight of the new batch in the running statistics (torch's sense; Caffe states 1 minus this)."""


@dataclass(frozen=True)
class Dropout:
    name: str
    rate: float
    scaling: DropoutScaling


@dataclass(frozen=True)
class Exchange:
    """Where parts of a network, each on a process of its own, give each other what they hold (models/parts.py)."""

    name: str
    held: Literal["maps", "images"]
    """What each part has its share of before: of the maps (or features), or of the images of a batch."""
    wanted: Literal["all", "images"]
    """After: everything, or the share of the images."""
    channels: int
    """Maps (or features) of all parts together."""


Layer: TypeAlias = (
    Convolution
    | Local
    | Linear
    | ReLU
    | Tanh
    | SiLU
    | ResponseNorm
    | SpatialNorm
    | MaxPool
    | AveragePool
    | AdaptiveAveragePool
    | BatchNorm
    | Dropout
    | Exchange
)
Shape: TypeAlias = tuple[int, ...]
"""(channels, height, width) or (features,) of one image's activations."""

_LAYER_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Convolution,
        Local,
        Linear,
        ReLU,
        Tanh,
        SiLU,
        ResponseNorm,
        SpatialNorm,
        MaxPool,
        AveragePool,
        AdaptiveAveragePool,
        BatchNorm,
        Dropout,
    )
}
"""Those that a file can name. Parts of a network (Exchange) are made of whole ones, and are in no file."""


@dataclass(frozen=True)
class Architecture:
    """A variant of the network: its layers in order, and what kind of images it is meant for."""

    name: str
    summary: str
    """One sentence for people."""
    source: str
    """Where its numbers come from."""
    image_size: int
    """Side of its input, pixels."""
    pad_right_bottom: int
    """Zero rows and columns added at the right and the bottom of the images."""
    input_scale: Literal["pixels", "unit"]
    """pixels: 0-255 minus the mean; unit: 0-1, then minus the mean and divided by the deviation of each channel."""
    channel_order: Literal["rgb", "bgr"]
    initialization: str
    """The scheme (`alexnet.models.initialization.SCHEMES`) that belongs to it."""
    layers: tuple[Layer, ...]

    @property
    def has_batch_norm(self) -> bool:
        """Whether what becomes of an image in training depends on those beside it in the pass."""
        return any(isinstance(layer, BatchNorm) for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain types, every layer with its "kind"; `from_dict` is the inverse."""
        fields = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return {**fields, "layers": [{"kind": type(layer).__name__, **asdict(layer)} for layer in self.layers]}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Architecture:
        """The record that `to_dict` described. Raises ValueError or TypeError for anything else."""
        layers = []
        for description in fields["layers"]:
            kind = _LAYER_KINDS.get(description.get("kind"))
            if kind is None:
                raise ValueError(f"unknown kind of layer {description.get('kind')!r}")
            layers.append(kind(**{key: value for key, value in description.items() if key != "kind"}))
        return cls(**{**fields, "layers": tuple(layers)})


class LayerShapes(NamedTuple):
    """A layer with the shapes of one image's activations before and after it."""

    layer: Layer
    inputs: Shape
    outputs: Shape


def layer_shapes(architecture: Architecture, num_classes: int, image_size: int) -> list[LayerShapes]:
    """The shapes through the network for one (3, image_size, image_size) image, by arithmetic alone.

    The first layer's input includes `pad_right_bottom`. Raises UserError, naming the smallest size that fits, when a
    layer would have no output, and when a layer's groups do not divide what it is given.
    """
    shapes = []
    for row in _walk(architecture, num_classes, image_size):
        _check_groups(row)
        if min(row.outputs) < 1:
            raise UserError(
                f"image_size = {image_size} is too small for {architecture.name}: {row.layer.name} would have no "
                f"output. The smallest size that fits is {minimum_image_size(architecture)} px."
            )
        shapes.append(row)
    return shapes


def _check_groups(row: LayerShapes) -> None:
    """Raises UserError where a layer cannot share its inputs out among its groups or towers."""
    layer = row.layer
    groups = layer.towers if isinstance(layer, ResponseNorm) else getattr(layer, "groups", 1)
    inputs = math.prod(row.inputs) if isinstance(layer, Linear) else row.inputs[0]
    if inputs % groups:
        what = "inputs" if isinstance(layer, Linear) else "maps"
        raise UserError(
            f"{layer.name} works in {groups} groups, which the {inputs} {what} it would be given do not divide into; "
            f"leave out {layer.name} too, or keep the layer that came before it."
        )


def minimum_image_size(architecture: Architecture) -> int:
    """The smallest side, in pixels, of images the network can be built for."""

    def fits(size: int) -> bool:
        return all(min(row.outputs) >= 1 for row in _walk(architecture, 1, size))

    # Larger images never have smaller maps, and a record from a file can ask for any size: no counting up to it.
    enough = 1
    while not fits(enough) and enough < 2**40:  # a layer of no channels has no output at any size
        enough *= 2
    return bisect_left(range(enough), True, lo=1, key=fits)


def _walk(architecture: Architecture, num_classes: int, image_size: int) -> Iterator[LayerShapes]:
    side = image_size + architecture.pad_right_bottom
    shape: Shape = (INPUT_CHANNELS, side, side)
    for layer in architecture.layers:
        outputs = _output_shape(layer, shape, num_classes)
        yield LayerShapes(layer, shape, outputs)
        if min(outputs) < 1:
            return
        shape = outputs


def _output_shape(layer: Layer, inputs: Shape, num_classes: int) -> Shape:
    match layer:
        case Convolution():
            side = (inputs[1] + 2 * layer.padding - layer.kernel) // layer.stride + 1
            return (layer.channels, side, side)
        case Local():
            side = inputs[1] + 2 * layer.padding - layer.kernel + 1
            return (layer.channels, side, side)
        case MaxPool() | AveragePool():
            side = pooled_side(inputs[1], layer.size, layer.stride, layer.ceil_mode)
            return (inputs[0], side, side)
        case AdaptiveAveragePool():
            return (inputs[0], layer.size, layer.size)
        case Exchange():
            return (layer.channels, *inputs[1:])
        case Linear():
            return (num_classes if layer.features is None else layer.features,)
        case _:
            return inputs


def pooled_side(side: int, size: int, stride: int, ceil_mode: bool) -> int:
    """Side of a pooled map: floor((side - size) / stride) + 1, or with ceil (S layer.py:1164); torch's arithmetic."""
    if not ceil_mode:
        return (side - size) // stride + 1
    pooled = math.ceil((side - size) / stride) + 1
    # The last window has to begin inside the map.
    return pooled - 1 if (pooled - 1) * stride >= side else pooled


def share_of_rows(total: int, parts: int, rank: int) -> slice:
    """A part's share of `total` things, as torch.chunk and DTensor deal them out: the last may be smaller."""
    size = -(-total // parts)
    return slice(min(rank * size, total), min((rank + 1) * size, total))

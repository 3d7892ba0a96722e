"""What a network is, as data: records of layers, and the arithmetic of their shapes. Nothing here needs torch."""

from __future__ import annotations

import functools
import keyword
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

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
        """Return the record that `to_dict` described.

        Raises:
            ValueError: For anything else, and for a network that cannot be (see `check_architecture`).
        """
        if not isinstance(fields, dict) or not isinstance(fields.get("layers"), (list, tuple)):
            raise ValueError("an architecture is a mapping with a list of layers")
        layers = []
        for description in fields["layers"]:
            if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
                raise ValueError("a layer is a mapping with its kind")
            kind = _LAYER_KINDS.get(description["kind"])
            if kind is None:
                raise ValueError(f"unknown kind of layer {description['kind']!r}")
            layers.append(_from_fields(kind, {key: value for key, value in description.items() if key != "kind"}))
        architecture = _from_fields(cls, {**fields, "layers": tuple(layers)})
        check_architecture(architecture)
        return architecture


def _from_fields(kind: type, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(str(error).replace("__init__()", "").replace("  ", " ")) from None


_MOST_LAYERS = 1000
_MOST_WEIGHTS = 2**33
_MOST_NUMBERS = 2**31
"""Outputs of one layer for one image."""
_RANGES: dict[str, tuple[float, float]] = {
    "channels": (1, 2**20),
    "features": (1, 2**24),
    "kernel": (1, 4096),
    "size": (1, 4096),
    "stride": (1, 4096),
    "padding": (0, 4096),
    "pad_right_bottom": (0, 4096),
    "groups": (1, 2**20),
    "towers": (1, 2**20),
    "image_size": (1, 2**16),
    "alpha": (0, 1e6),
    "beta": (0, 100),
    "k": (1e-6, 1e6),
    "eps": (0, 1e9),
    "momentum": (0, 1),
    "rate": (0, 1),
}
"""Least and largest value of a number, in every record that has it: far more than any AlexNet needs."""
_LONGEST_NAME, _LONGEST_TEXT = 100, 20_000


def check_architecture(architecture: Architecture) -> None:
    """Check every field of a record by type, range, relation and name.

    Records come from files that anyone can have written, and the kernels take their numbers as they are.

    Raises:
        ValueError: For a record of a network that cannot be; the message names the layer, the field and the value.
    """
    _check_fields(architecture, "the architecture")
    if not 1 <= len(architecture.layers) <= _MOST_LAYERS:
        raise ValueError(f"the architecture has {len(architecture.layers)} layers; it needs 1 to {_MOST_LAYERS}")
    names: set[str] = set()
    for layer in architecture.layers:
        _check_name(layer.name, names)
        names.add(layer.name)
        _check_fields(layer, layer.name)
        match layer:
            case Convolution() | Local() if layer.padding >= layer.kernel:
                raise ValueError(f"{layer.name}: padding = {layer.padding} is not less than kernel = {layer.kernel}")
            case Convolution() if layer.channels % layer.groups:
                raise ValueError(f"{layer.name}: groups = {layer.groups} do not divide channels = {layer.channels}")
            case SpatialNorm() if layer.size % 2 == 0:
                raise ValueError(f"{layer.name}: size = {layer.size} has no middle; it must be odd")
            case Dropout() if layer.rate == 1:
                raise ValueError(f"{layer.name}: rate = 1 drops everything")


def _check_name(name: Any, taken: set[str]) -> None:
    """A layer is an attribute of the network, and its name is in those of the weights."""
    if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or len(name) > _LONGEST_NAME:
        raise ValueError(f"{str(name)[:40]!r} is no name of a layer: give ASCII letters, digits and _")
    if name in taken:
        raise ValueError(f"two layers are named {name}")
    if keyword.iskeyword(name) or name.startswith("_") or name in _attributes_of_a_module():
        raise ValueError(f"a layer cannot be named {name}: a module has that attribute")


@functools.cache
def _attributes_of_a_module() -> frozenset[str]:
    from torch import nn  # a second and a half, which recipes and `info` of a variant do not need

    return frozenset(dir(nn.Module()))


@functools.cache
def _types_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_fields(record: Any, owner: str) -> None:
    for field, wanted in _types_of(type(record)).items():
        if field != "layers":
            _check_field(f"{owner}: {field}", field, getattr(record, field), wanted)


def _check_field(label: str, field: str, value: Any, wanted: Any) -> None:
    if get_origin(wanted) in (UnionType,) and type(None) in get_args(wanted):
        if value is None:
            return
        wanted = next(kind for kind in get_args(wanted) if kind is not type(None))
    shown = repr(value)[:60]
    if get_origin(wanted) is Literal:
        if not isinstance(value, str) or value not in get_args(wanted):
            raise ValueError(f"{label} = {shown} is none of {', '.join(get_args(wanted))}")
    elif wanted is str:
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise ValueError(f"{label} = {shown} is no text of at most {_LONGEST_TEXT:,} characters")
    elif wanted is bool:
        if type(value) is not bool:
            raise ValueError(f"{label} = {shown} is neither true nor false")
    else:
        least, most = _RANGES[field]
        # bool is an int for Python, and nan is between no numbers.
        if type(value) not in ((int, float) if wanted is float else (int,)) or not least <= value <= most:
            kind = "number" if wanted is float else "whole number"
            raise ValueError(f"{label} = {shown} is no {kind} from {least:,} to {most:,}")


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
        _check_size(row)
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


def _check_size(row: LayerShapes) -> None:
    """Raises UserError for a layer that no machine has the memory for."""
    layer, inputs, outputs = row
    weights = 0
    match layer:
        case Convolution():
            weights = layer.channels * inputs[0] * layer.kernel**2 // layer.groups
        case Local():
            weights = math.prod(outputs) * inputs[0] * layer.kernel**2
        case Linear():
            weights = math.prod(inputs) * outputs[0] // layer.groups
    if weights > _MOST_WEIGHTS or math.prod(outputs) > _MOST_NUMBERS:
        raise UserError(
            f"{layer.name} would have {weights:,} weights and {math.prod(outputs):,} outputs for an image; at most "
            f"{_MOST_WEIGHTS:,} and {_MOST_NUMBERS:,} are possible."
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

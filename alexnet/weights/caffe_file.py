"""Caffe's binary files as they are: the layers of a .caffemodel with their numbers, and the image of a .binaryproto.

Source of all field numbers: BVLC/caffe src/caffe/proto/caffe.proto. Both generations are read: `layers` (field 2, types
as numbers, blobs of four sizes) and `layer` (field 100, types as names, blobs of any shape).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from alexnet.errors import UserError
from alexnet.weights.wire import Field, WireError, WireReader

Read = TypeVar("Read")
ValueKind = Literal["integer", "number", "text"]

# What is read of a layer's parameters: field number -> (name, what its values are).
_CONVOLUTION: dict[int, tuple[str, ValueKind]] = {
    1: ("num_output", "integer"), 2: ("bias_term", "integer"), 3: ("pad", "integer"), 4: ("kernel_size", "integer"),
    5: ("group", "integer"), 6: ("stride", "integer"), 9: ("pad_h", "integer"), 10: ("pad_w", "integer"),
    11: ("kernel_h", "integer"), 12: ("kernel_w", "integer"), 13: ("stride_h", "integer"), 14: ("stride_w", "integer"),
    18: ("dilation", "integer"),
}  # fmt: skip
_POOLING: dict[int, tuple[str, ValueKind]] = {
    1: ("pool", "integer"), 2: ("kernel_size", "integer"), 3: ("stride", "integer"), 4: ("pad", "integer"),
    5: ("kernel_h", "integer"), 6: ("kernel_w", "integer"), 7: ("stride_h", "integer"), 8: ("stride_w", "integer"),
    9: ("pad_h", "integer"), 10: ("pad_w", "integer"), 12: ("global_pooling", "integer"),
    13: ("round_mode", "integer"),
}  # fmt: skip
_LRN: dict[int, tuple[str, ValueKind]] = {
    1: ("local_size", "integer"), 2: ("alpha", "number"), 3: ("beta", "number"), 4: ("norm_region", "integer"),
    5: ("k", "number"),
}  # fmt: skip
_INNER_PRODUCT: dict[int, tuple[str, ValueKind]] = {
    1: ("num_output", "integer"), 2: ("bias_term", "integer"), 6: ("transpose", "integer"),
}  # fmt: skip
_TRANSFORM: dict[int, tuple[str, ValueKind]] = {
    1: ("scale", "number"), 3: ("crop_size", "integer"), 4: ("mean_file", "text"), 5: ("mean_value", "number"),
}  # fmt: skip
# Before there was transform_param, a data layer's own parameters said it.
_OLD_DATA: dict[int, tuple[str, ValueKind]] = {2: ("scale", "number"), 3: ("mean_file", "text"),
                                               5: ("crop_size", "integer")}  # fmt: skip
_DROPOUT: dict[int, tuple[str, ValueKind]] = {1: ("dropout_ratio", "number"), 2: ("scale_train", "integer")}
_RELU: dict[int, tuple[str, ValueKind]] = {1: ("negative_slope", "number")}


class _Generation(NamedTuple):
    """Where the fields of a layer are in one generation of the format."""

    name: int
    type: int
    bottom: int
    top: int
    blobs: int
    parameters: dict[int, dict[int, tuple[str, ValueKind]]]


_NEW = _Generation(
    name=1, type=2, bottom=3, top=4, blobs=7,
    parameters={100: _TRANSFORM, 106: _CONVOLUTION, 107: _OLD_DATA, 108: _DROPOUT, 115: _OLD_DATA,
                117: _INNER_PRODUCT, 118: _LRN, 121: _POOLING, 123: _RELU},
)  # fmt: skip
_OLD = _Generation(
    name=4, type=5, bottom=2, top=3, blobs=6,
    parameters={36: _TRANSFORM, 10: _CONVOLUTION, 11: _OLD_DATA, 12: _DROPOUT, 15: _OLD_DATA, 17: _INNER_PRODUCT,
                18: _LRN, 19: _POOLING, 30: _RELU},
)  # fmt: skip
_OLD_TYPES = {
    1: "Accuracy", 5: "Data", 4: "Convolution", 6: "Dropout", 12: "ImageData", 14: "InnerProduct", 15: "LRN",
    17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 23: "TanH",
    24: "WindowData", 29: "MemoryData", 36: "Silence",
}  # fmt: skip


@dataclass(frozen=True)
class Blob:
    """An array of numbers in a file."""

    shape: tuple[int, ...]
    values: np.ndarray
    """(product of the shape,), float32 or float64, read where they lie."""

    def array(self) -> np.ndarray:
        """The numbers in their shape, as float32 of their own."""
        return self.values.astype(np.float32).reshape(self.shape)


@dataclass(frozen=True)
class CaffeLayer:
    """One layer as a .caffemodel has it."""

    name: str
    type: str
    """As `layer` names it: Convolution, InnerProduct, LRN ...; "type N" for a number without a name here."""
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: tuple[Blob, ...]
    parameters: dict[str, list[Any]] = field(default_factory=dict)
    """What the file states, each as a list; what it does not state has Caffe's default."""

    def first(self, name: str, default: Any) -> Any:
        """The first value of a parameter, or its default."""
        return (self.parameters.get(name) or [default])[0]


@dataclass(frozen=True)
class CaffeNet:
    """A .caffemodel: what its network is called, and its layers in order."""

    name: str
    layers: tuple[CaffeLayer, ...]
    input_size: int | None
    """Side of the input in pixels, where the file declares its input by itself and not by a layer."""


def read_caffemodel(path: Path) -> CaffeNet:
    """The network of a .caffemodel. Raises UserError for anything else, without reading more than is there."""
    return _read(path, "a Caffe model", _net)


def read_binaryproto(path: Path) -> np.ndarray:
    """The array of a .binaryproto: for a mean image (3, H, W) float32, channels in Caffe's order, blue first.

    Raises UserError for anything else.
    """

    def image(reader: WireReader, message: memoryview) -> np.ndarray:
        array = _blob(reader, message).array()
        while array.ndim > 3 and array.shape[0] == 1:
            array = array[0]
        return array

    return _read(path, "a mean image of Caffe", image)


def _read(path: Path, what: str, read: Callable[[WireReader, memoryview], Read]) -> Read:
    try:
        with path.open("rb") as file:
            contents = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError:  # mmap's word for a file without bytes
        raise UserError(f"{path} is empty.") from None
    try:
        return read(WireReader(), contents)
    except WireError as error:
        raise UserError(f"{path} cannot be read as {what}: {error}. It is damaged, or something else.") from None


def _net(reader: WireReader, message: memoryview) -> CaffeNet:
    name, layers, sizes = "", [], []
    for item in reader.fields(message):
        if item.number == 1:
            name = item.text()
        elif item.number == 4:  # input_dim: four numbers an input
            sizes += reader.integers(item)
        elif item.number == 8:  # input_shape
            sizes += _dims(reader, item)
        elif item.number == 100:
            layers.append(_layer(reader, item.bytes(), _NEW))
        elif item.number == 2:
            layers.append(_layer(reader, item.bytes(), _OLD))
    if not layers:
        raise WireError("it has no layers")
    return CaffeNet(name, tuple(layers), sizes[3] if len(sizes) == 4 else None)


def _layer(reader: WireReader, message: memoryview, generation: _Generation) -> CaffeLayer:
    name, kind = "", ""
    bottoms, tops, blobs, parameters = [], [], [], {}
    for item in reader.fields(message):
        if item.number == generation.name:
            name = item.text()
        elif item.number == generation.type:
            old = generation is _OLD
            kind = _OLD_TYPES.get(item.integer(), f"type {item.integer()}") if old else item.text()
        elif item.number == generation.bottom:
            bottoms.append(item.text())
        elif item.number == generation.top:
            tops.append(item.text())
        elif item.number == generation.blobs:
            blobs.append(_blob(reader, item.bytes()))
        elif item.number in generation.parameters:
            for key, values in _parameters(reader, item, generation.parameters[item.number]).items():
                parameters.setdefault(key, []).extend(values)
        elif generation is _NEW and item.number == 143:  # input_param
            shapes = [size for part in reader.fields(item.bytes()) for size in _dims(reader, part)]
            parameters["input_shape"] = shapes
        elif generation is _OLD and item.number == 1:
            raise WireError("it is of Caffe's first format (2013); write it anew with Caffe's upgrade_net_proto_binary")
    return CaffeLayer(name, kind, tuple(bottoms), tuple(tops), tuple(blobs), parameters)


def _parameters(reader: WireReader, item: Field, names: dict[int, tuple[str, ValueKind]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for part in reader.fields(item.bytes()):
        if part.number not in names:
            continue
        name, kind = names[part.number]
        if kind == "integer":
            values: list[Any] = reader.integers(part)
        elif kind == "text":
            values = [part.text()]
        else:
            values = part.decimals()
        found.setdefault(name, []).extend(values)
    return found


def _blob(reader: WireReader, message: memoryview) -> Blob:
    old = {1: 0, 2: 0, 3: 0, 4: 0}  # num, channels, height, width
    shape: list[int] | None = None
    chunks: list[np.ndarray] = []
    for item in reader.fields(message):
        if item.number in old:
            old[item.number] = item.integer()
        elif item.number == 7:
            shape = _dims(reader, item)
        elif item.number == 5:
            chunks.append(item.floats())
        elif item.number == 8:
            chunks.append(item.floats("<f8"))
    sizes = tuple(old.values() if shape is None else shape)
    values = np.zeros(0, np.float32) if not chunks else chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    if len(sizes) > 8 or min(sizes, default=1) < 0 or math.prod(sizes) != len(values):
        shown = " x ".join(map(str, sizes[:8]))
        raise WireError(f"an array of {shown} has {len(values):,} numbers")
    return Blob(sizes, values)


def _dims(reader: WireReader, item: Field) -> list[int]:
    """The sizes of a BlobShape."""
    return [size for part in reader.fields(item.bytes()) if part.number == 1 for size in reader.integers(part)]

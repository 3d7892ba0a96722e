"""A network of Caffe as a record of ours: layer by layer, then compared with the variants `caffe` and `caffenet`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from alexnet.errors import UserError
from alexnet.models import Architecture, compare, get_architecture
from alexnet.models.architecture import (
    AveragePool,
    Convolution,
    Dropout,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    SpatialNorm,
    Tanh,
)
from alexnet.weights.caffe_file import CaffeLayer, CaffeNet, read_caffemodel
from alexnet.weights.found import Found, Mean

_WEIGHTS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
_LARGEST = 100_000
# Layers that feed the network or follow its last outputs; a Split hands the same array on.
_AROUND = {
    *("Data", "ImageData", "WindowData", "MemoryData", "HDF5Data", "DummyData", "Input", "Python"),
    *("Softmax", "SoftmaxWithLoss", "Accuracy", "Silence", "Split"),
}
_INPUTS = {"Data", "ImageData", "WindowData", "MemoryData"}


def find_caffe_weights(path: Path) -> Found:
    """The weights, the network and the preprocessing that a .caffemodel describes.

    Raises UserError for a file that is none, for a network that is no AlexNet and for layers that have no counterpart.
    """
    net = read_caffemodel(path)
    try:
        layers, sources = _translated(net)
    except ValueError as error:
        raise UserError(f"{path} is a Caffe model, but no AlexNet that can be imported: {error}.") from None
    tensors, names = {}, {}
    for layer, source in zip(layers, sources, strict=True):
        if isinstance(layer, Convolution | Linear):
            for part, blob in zip(("weight", "bias"), source.blobs, strict=False):
                tensors[f"{layer.name}.{part}"] = torch.from_numpy(_shaped(layer, part, source, blob.array()))
                names[f"{layer.name}.{part}"] = f"{source.name}[{part == 'bias':d}]"
    preprocessing = _preprocessing_of(net)
    scale = preprocessing.first("scale", 1.0)
    means = preprocessing.parameters.get("mean_value", [])
    if not math.isfinite(scale) or len(means) not in (0, 1, 3) or not all(map(math.isfinite, means)):
        raise UserError(
            f"{path} is a Caffe model whose inputs cannot be: its data layer has scale = {scale:g} and "
            f"{len(means)} mean values, which should be finite, and none, one or three."
        )
    notes = []
    if scale != 1.0 and "conv1.weight" in tensors:
        # conv1(scale * (pixels - mean)): the factor moves into conv1's weights.
        tensors["conv1.weight"] *= scale
        notes.append(f"The network's inputs are multiplied by {scale:g}; conv1's weights were multiplied instead.")
    mean = None
    if means:
        blue_first = np.array(means * 3 if len(means) == 1 else means, np.float32)
        mean = Mean(blue_first[::-1].copy(), "the file's own mean_value")
    return Found(
        form="a Caffe model",
        tensors=tensors,
        names=names,
        architecture=_named(layers, path),
        image_size=preprocessing.first("crop_size", None) or _input_size(net),
        mean=mean,
        mean_file=preprocessing.first("mean_file", None),
        notes=tuple(notes),
    )


def _named(layers: tuple[Layer, ...], path: Path) -> Architecture:
    """The variant that has these layers, or the nearer of Caffe's two with them instead."""
    caffe, caffenet = get_architecture("caffe"), get_architecture("caffenet")
    for variant in (caffe, caffenet):
        if variant.layers == layers:
            return variant
    described = [replace(variant, layers=layers) for variant in (caffe, caffenet)]
    nearest = min(described, key=lambda record: len(compare(get_architecture(record.name), record)))
    changes = compare(get_architecture(nearest.name), nearest)
    changed = "; ".join(f"{row.layer} {row.field}: {row.b} instead of {row.a}" for row in changes[:6])
    return replace(nearest, summary=f"{nearest.summary} Changed, as {path.name} has it: {changed}.")


def _translated(net: CaffeNet) -> tuple[tuple[Layer, ...], tuple[CaffeLayer, ...]]:
    """Our layers, each with the one it was made of. Raises ValueError for a network without a counterpart."""
    chain = list(_chain(net))
    outputs = [source.name for source in chain if source.type == "InnerProduct"][-1:]
    layers: list[Layer] = []
    weighted = 0
    for source in chain:
        weighted += source.type in ("Convolution", "InnerProduct")
        layers.append(_bounded(_layer(source, weighted, is_output=source.name in outputs)))
    weights = tuple(layer.name for layer in layers if isinstance(layer, Convolution | Linear))
    if weights != _WEIGHTS:
        raise ValueError(
            f"its layers with weights, numbered in our way, are {', '.join(weights) or 'none'}, instead of "
            f"{', '.join(_WEIGHTS)}"
        )
    names = [layer.name for layer in layers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"it has two layers in the place of {twice}")
    return tuple(layers), tuple(chain)


def _chain(net: CaffeNet) -> Iterator[CaffeLayer]:
    """The layers between input and output, which have to follow each other."""
    same: dict[str, str] = {}  # an array's other names, by Split
    current: str | None = None
    for layer in net.layers:
        if layer.type == "Split" and layer.bottoms:
            same.update(dict.fromkeys(layer.tops, layer.bottoms[0]))
        if layer.type in _AROUND:
            continue
        bottom = layer.bottoms[0] if layer.bottoms else None
        bottom = same.get(bottom, bottom) if bottom is not None else None
        if None not in (current, bottom) and bottom != current:
            raise ValueError(f"its layers are no chain: {layer.name} reads {bottom}, after {current}")
        yield layer
        current = layer.tops[0] if layer.tops else bottom


def _layer(source: CaffeLayer, number: int, *, is_output: bool) -> Layer:
    """Our record of a layer that belongs to the `number`-th layer of weights."""
    match source.type:
        case "Convolution":
            return Convolution(
                f"conv{number}",
                source.first("num_output", 0),
                kernel=_square(source, "kernel_size", "kernel", 0),
                stride=_square(source, "stride", "stride", 1),
                padding=_square(source, "pad", "pad", 0),
                groups=source.first("group", 1),
                bias=bool(source.first("bias_term", 1)),
            )
        case "InnerProduct":
            return Linear(f"fc{number}", None if is_output else source.first("num_output", 0))
        case "ReLU":
            _refuse(source, negative_slope=0.0)
            return ReLU(f"relu{number}")
        case "TanH":
            return Tanh(f"relu{number}")
        case "LRN":
            return _norm(source, f"norm{number}")
        case "Pooling":
            return _pool(source, f"pool{number}")
        case "Dropout":
            scaling = "inverted" if source.first("scale_train", 1) else "original"
            return Dropout(f"drop{number}", source.first("dropout_ratio", 0.5), scaling)
    raise ValueError(f"its layer {source.name} is of the type {source.type or 'none'}, which has no counterpart here")


def _bounded(layer: Layer) -> Layer:
    """The layer, unless a size of it is none: shapes are computed from them next."""
    for name, value in asdict(layer).items():
        if isinstance(value, int) and not (0 if name == "padding" else 1) <= value <= _LARGEST and name != "ceil_mode":
            raise ValueError(f"{layer.name} has {name} = {value:,}")
    return layer


def _norm(source: CaffeLayer, name: str) -> ResponseNorm | SpatialNorm:
    size, alpha, beta = source.first("local_size", 5), source.first("alpha", 1.0), source.first("beta", 0.75)
    if source.first("norm_region", 0):
        return SpatialNorm(name, size, alpha, beta, k=1.0, alpha_convention="mean")
    return ResponseNorm(name, size, alpha, beta, k=source.first("k", 1.0), alpha_convention="mean")


def _pool(source: CaffeLayer, name: str) -> MaxPool | AveragePool:
    _refuse(source, global_pooling=0)
    if _square(source, "pad", "pad", 0):
        raise ValueError(f"its layer {source.name} pads what it pools, which has no counterpart here")
    kinds = {0: MaxPool, 1: AveragePool}
    kind = kinds.get(source.first("pool", 0))
    if kind is None:
        raise ValueError(f"its layer {source.name} pools at random, which has no counterpart here")
    size, stride = _square(source, "kernel_size", "kernel", 0), _square(source, "stride", "stride", 1)
    return kind(name, size, stride, ceil_mode=source.first("round_mode", 0) == 0)


def _square(source: CaffeLayer, name: str, prefix: str, default: int) -> int:
    """A size that is the same in both directions, however the file states it."""
    stated = source.parameters.get(name, [])
    both = [source.first(f"{prefix}_h", None), source.first(f"{prefix}_w", None)]
    sizes = {size for size in [*stated, *both] if size is not None} or {default}
    if len(sizes) > 1:
        raise ValueError(f"its layer {source.name} has a {name} of {' and '.join(map(str, sorted(sizes)))}")
    if name == "kernel_size":
        _refuse(source, dilation=1)
    return sizes.pop()


def _refuse(source: CaffeLayer, **defaults: float) -> None:
    """Raises ValueError where a parameter has another value than the one that our layers have."""
    for name, default in defaults.items():
        for value in source.parameters.get(name, []):
            if value != default:
                raise ValueError(f"its layer {source.name} has {name} = {value:g}, which has no counterpart here")


def _shaped(layer: Convolution | Linear, part: str, source: CaffeLayer, array: np.ndarray) -> np.ndarray:
    """A blob in the shape that our weights have: old files, and ones converted from them, always have four sizes."""
    if part == "bias":
        return array.reshape(-1)
    if isinstance(layer, Convolution):
        return array
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    return np.ascontiguousarray(array.T) if source.first("transpose", 0) else array


def _preprocessing_of(net: CaffeNet) -> CaffeLayer:
    """The layer that the images come from; one without parameters where the file has none."""
    found = next((layer for layer in net.layers if layer.type in _INPUTS and layer.parameters), None)
    return found or CaffeLayer("", "", (), (), ())


def _input_size(net: CaffeNet) -> int | None:
    shape = next((layer.parameters.get("input_shape") for layer in net.layers if layer.type == "Input"), None)
    return shape[3] if shape and len(shape) == 4 else net.input_size

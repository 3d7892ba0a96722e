"""Caffe's files, written by hand: what the reader is tested with, and what OpenCV reads beside it.

The numbers of the fields are those of BVLC/caffe src/caffe/proto/caffe.proto; nothing here is shared with the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alexnet.models import AlexNet
from alexnet.models.architecture import Convolution, Dropout, Linear, MaxPool, ReLU, ResponseNorm

OLD_TYPES = {"Convolution": 4, "Data": 5, "Dropout": 6, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18,
             "SoftmaxWithLoss": 21}  # fmt: skip


def varint(value: int) -> bytes:
    """7 bits a byte, lowest first."""
    value %= 2**64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """An integer field."""
    return varint(field << 3) + varint(value)


def real(field: int, value: float) -> bytes:
    """A float field."""
    return varint(field << 3 | 5) + struct.pack("<f", value)


def data(field: int, value: bytes | str) -> bytes:
    """A field of bytes, text or a message."""
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def blob(array: np.ndarray, *, old: bool = False, double: bool = False) -> bytes:
    """A BlobProto: with the shape that the array has, or (old) with four sizes."""
    if old:
        sizes = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(number(field, size) for field, size in enumerate(sizes, start=1))
    else:
        head = data(7, data(1, b"".join(map(varint, array.shape))))
    if double:
        return head + data(8, array.astype("<f8").tobytes())
    return head + data(5, array.astype("<f4").tobytes())


def layer(
    name: str, kind: str, bottom: str, top: str, blobs: Sequence[bytes], parameters: bytes, *, old: bool
) -> bytes:
    """A layer as a field of a NetParameter; parameters: fields with the new format's numbers already."""
    if old:
        body = data(2, bottom) if bottom else b""
        body += data(3, top) + data(4, name) + number(5, OLD_TYPES[kind])
        return data(2, body + b"".join(data(6, item) for item in blobs) + parameters)
    body = data(1, name) + data(2, kind) + (data(3, bottom) if bottom else b"") + data(4, top)
    return data(100, body + b"".join(data(7, item) for item in blobs) + parameters)


# Of the parameters of a kind of layer: their field in the new format, and in the old.
PARAMETERS = {"Convolution": (106, 10), "InnerProduct": (117, 17), "LRN": (118, 18), "Pooling": (121, 19),
              "Dropout": (108, 12), "Data": (100, 36)}  # fmt: skip


def net_of(
    model: AlexNet,
    *,
    old: bool = False,
    double: bool = False,
    transform: bytes | None = None,
    renamed: dict | None = None,
) -> bytes:
    """A NetParameter of a network of Caffe: a data layer, the layers, a loss. renamed: our name -> another."""
    renamed = renamed or {}
    parts = [data(1, "AlexNet")]
    field = PARAMETERS["Data"][old]
    preprocessing = number(2, 1) + number(3, model.image_size) + data(4, "imagenet_mean.binaryproto")
    transform = preprocessing if transform is None else transform
    parts.append(layer("data", "Data", "", "data", [], data(field, transform), old=old))
    bottom = "data"
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    for record in model.architecture.layers:
        kind, parameters = describe(record, model.num_classes)
        name = renamed.get(record.name, record.name)
        in_place = isinstance(record, ReLU | Dropout)
        top = bottom if in_place else name
        weights = [state[key] for key in (f"{record.name}.weight", f"{record.name}.bias") if key in state]
        blobs = [blob(array, old=old, double=double) for array in weights]
        field = data(PARAMETERS[kind][old], parameters) if parameters else b""
        parts.append(layer(name, kind, bottom, top, blobs, field, old=old))
        bottom = top
    parts.append(layer("loss", "SoftmaxWithLoss", bottom, "loss", [], b"", old=old))
    return b"".join(parts)


def describe(record: object, num_classes: int) -> tuple[str, bytes]:
    """Caffe's type and parameters of one of our layers; what is Caffe's default is not written."""
    match record:
        case Convolution():
            fields = number(1, record.channels) + number(4, record.kernel)
            fields += number(3, record.padding) if record.padding else b""
            fields += number(6, record.stride) if record.stride != 1 else b""
            return "Convolution", fields + (number(5, record.groups) if record.groups != 1 else b"")
        case Linear():
            return "InnerProduct", number(1, record.features or num_classes)
        case ReLU():
            return "ReLU", b""
        case ResponseNorm():
            fields = number(1, record.size) + real(2, record.alpha) + real(3, record.beta)
            return "LRN", fields + (real(5, record.k) if record.k != 1 else b"")
        case MaxPool():
            return "Pooling", number(1, 0) + number(2, record.size) + number(3, record.stride)
        case Dropout():
            return "Dropout", real(1, record.rate)
    raise AssertionError(record)


def prototxt_of(model: AlexNet) -> str:
    """The network in Caffe's text format, with an input in the place of the data and without a loss."""
    side = model.image_size
    lines = ['name: "AlexNet"', 'layer { name: "data" type: "Input" top: "data"',
             f"  input_param {{ shape {{ dim: 1 dim: 3 dim: {side} dim: {side} }} }} }}"]  # fmt: skip
    bottom = "data"
    for record in model.architecture.layers:
        kind, parameters = describe_as_text(record, model.num_classes)
        top = bottom if isinstance(record, ReLU | Dropout) else record.name
        lines.append(f'layer {{ name: "{record.name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {parameters} }}')
        bottom = top
    return "\n".join(lines)


def describe_as_text(record: object, num_classes: int) -> tuple[str, str]:
    """Caffe's type and parameters of one of our layers, in its text format."""
    match record:
        case Convolution():
            text = f"num_output: {record.channels} kernel_size: {record.kernel} stride: {record.stride}"
            text += f" pad: {record.padding} group: {record.groups}"
            return "Convolution", f"convolution_param {{ {text} }}"
        case Linear():
            return "InnerProduct", f"inner_product_param {{ num_output: {record.features or num_classes} }}"
        case ReLU():
            return "ReLU", ""
        case ResponseNorm():
            text = f"local_size: {record.size} alpha: {record.alpha} beta: {record.beta} k: {record.k}"
            return "LRN", f"lrn_param {{ {text} }}"
        case MaxPool():
            return "Pooling", f"pooling_param {{ pool: MAX kernel_size: {record.size} stride: {record.stride} }}"
        case Dropout():
            return "Dropout", f"dropout_param {{ dropout_ratio: {record.rate} }}"
    raise AssertionError(record)


def write(path: Path, contents: bytes) -> Path:
    """The file with these contents."""
    path.write_bytes(contents)
    return path

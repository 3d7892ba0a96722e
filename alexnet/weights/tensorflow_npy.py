"""The .npy dictionaries of the old TensorFlow ports of Caffe's nets: layer -> [weights, biases].

Convolutions are (height, width, inputs per group, outputs) in them, fully-connected weights (inputs, outputs), and the
inputs of fc6 are in the order (row, column, channel) where ours, and Caffe's, are (channel, row, column). The two
towers are grouped already: channels 0-127 of conv2 are the first group's. The nets take images with blue first, as
Caffe does. Source: ethereon/caffe-tensorflow, the converter that made bvlc_alexnet.npy.
"""

from __future__ import annotations

import math
import re
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.errors import UserError
from alexnet.weights.found import Found
from alexnet.weights.plain_pickle import PlainPickleError, load_plain

_LAYER = re.compile(r"(?:conv[1-5]|fc[678])")
_PARTS = ("weights", "biases")


def find_npy_weights(path: Path, *, allow_pickle: bool) -> Found:
    """The weights of an .npy dictionary.

    Such a dictionary is a pickle; it is read only where the person allows it, and even then nothing but plain data is
    (see plain_pickle). Raises UserError for anything else.
    """
    contents = _read(path, allow_pickle)
    if not isinstance(contents, dict):
        raise UserError(f"{path} holds one array, and no dictionary of layers: it is a mean image, or something else.")
    tensors, names = {}, {}
    for layer, value in contents.items():
        if not _LAYER.fullmatch(str(layer)):
            raise UserError(f"{path} has a layer {str(layer)[:40]!r}; an AlexNet has conv1 to conv5 and fc6 to fc8.")
        weights, biases = _arrays(value, layer, path)
        if weights.ndim == 4 and layer.startswith("conv"):
            ours = weights.transpose(3, 2, 0, 1)
        elif layer == "fc6":
            ours = _fc6(weights, _num_maps(contents, path), path)
        else:
            ours = weights.reshape(-1, weights.shape[-1]).T
        tensors[f"{layer}.weight"] = torch.from_numpy(np.array(ours, np.float32, order="C"))
        tensors[f"{layer}.bias"] = torch.from_numpy(np.array(biases, np.float32).reshape(-1))
        names.update({f"{layer}.weight": f"{layer}[0]", f"{layer}.bias": f"{layer}[1]"})
    return Found("a dictionary of the old TensorFlow ports", tensors, names, _variants(path))


def _variants(path: Path) -> tuple[str, ...]:
    """Both of Caffe's nets have these shapes; the file's name is the only thing that tells."""
    name = path.name.lower()
    if "caffenet" in name:
        return ("caffenet",)
    return ("caffe",) if "alexnet" in name else ("caffe", "caffenet")


def _read(path: Path, allow_pickle: bool) -> Any:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            if not dtype.hasobject:
                return np.empty(0)
            if not allow_pickle:
                raise UserError(
                    f"{path} is a pickled dictionary, which numpy would run as a program. Give --allow-pickle to "
                    "have it read: only plain data is taken from it, and nothing is run."
                )
            if shape != ():
                raise UserError(f"{path} holds {math.prod(shape):,} objects, and no dictionary of layers.")
            return load_plain(file, path.stat().st_size)
    except PlainPickleError as error:
        raise UserError(f"{path} is not read: {error}.") from None
    except (ValueError, TypeError, tokenize.TokenError) as error:  # numpy's words for a damaged header
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}.") from None


def _arrays(value: Any, layer: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of a layer, given as a pair or under their names."""
    parts = [value.get(name) for name in _PARTS] if isinstance(value, dict) else value
    arrays = [part for part in parts if isinstance(part, np.ndarray)] if isinstance(parts, list) else []
    if len(arrays) != 2:
        raise UserError(f"{path} has something else than weights and biases for {layer}.")
    weights, biases = arrays
    if weights.ndim not in (2, 4) or weights.size == 0 or weights.dtype.kind != "f" or biases.dtype.kind != "f":
        shown = " x ".join(map(str, weights.shape))
        raise UserError(f"{path} has weights of {shown} ({weights.dtype}) for {layer}, which are none.")
    return weights, biases


def _num_maps(contents: dict[str, Any], path: Path) -> int:
    """Channels of conv5; 0 without one."""
    return _arrays(contents["conv5"], "conv5", path)[0].shape[-1] if "conv5" in contents else 0


def _fc6(weights: np.ndarray, num_maps: int, path: Path) -> np.ndarray:
    """(outputs, channel * row * column) of weights whose inputs are in the order (row, column, channel)."""
    num_outputs = weights.shape[-1]
    if weights.ndim == 4:
        return weights.transpose(3, 2, 0, 1).reshape(num_outputs, -1)
    side = math.isqrt(weights.shape[0] // num_maps) if num_maps else 0
    if side * side * num_maps != weights.shape[0] or not side:
        raise UserError(
            f"{path} has {weights.shape[0]:,} inputs to fc6, which are no square maps of conv5's {num_maps} channels."
        )
    return weights.reshape(side, side, num_maps, num_outputs).transpose(3, 2, 0, 1).reshape(num_outputs, -1)

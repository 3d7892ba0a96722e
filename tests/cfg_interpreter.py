"""A network as the 2012 code computes it, in NumPy and float64, from the lines of `configs_2012`.

It shares nothing with the package: towers are layers of their own with explicit inputs, and every layer is written from
the semantics of the 2012 code. Convolutions and pools have 1 + ceil((side + 2 * pad - size) / stride) outputs, and what
lies beyond the last pixel is zero, or does not exist for a maximum. `scale` of a norm is divided by its window (size
across maps, size**2 within a map). Average pools divide by size**2 everywhere, as the code of 2011 did. A neuron acts
on the output of its layer. Dropout multiplies by `keep` in evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True)
class Row:
    """A layer of a configuration."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    numbers: dict[str, float]
    relu: bool

    def __getitem__(self, key: str) -> float:
        value = self.numbers[key]
        return int(value) if key in ("filters", "outputs", "size", "stride", "pad") else value


class Shapes(NamedTuple):
    """Shapes of one layer: of its output for one image, of its weights for each input, and of its biases."""

    output: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...] = ()
    biases: tuple[int, ...] = (0,)


def read(lines: str) -> list[Row]:
    """Return the layers in order, towers written out: all of a group of lines for a, then b, line by line."""
    rows = []
    for line in lines.strip().splitlines():
        for own, other in (("a", "b"), ("b", "a")) if "*" in line else (("", ""),):
            name, call, *rest = line.replace("*", own).replace("~", other).replace(" = ", " ", 1).split()
            kind, inputs = call.rstrip(")").split("(")
            numbers = {key: float(value) for key, value in (word.split("=") for word in rest if word != "relu")}
            rows.append(Row(name, kind, tuple(inputs.split(",")), numbers, "relu" in rest))
    return rows


def shapes_of(rows: list[Row], side: int, num_classes: int) -> dict[str, Shapes]:
    """Return the shapes through the network for (3, side, side) images, by layer."""
    found = {"data": Shapes((3, side, side))}
    for row in rows:
        inputs = [found[name].output for name in row.inputs]
        if row.kind == "fc":
            outputs = row["outputs"] or num_classes
            found[row.name] = Shapes((outputs,), tuple((outputs, math.prod(shape)) for shape in inputs), (outputs,))
        elif row.kind in ("conv", "local"):
            places = _places(row, inputs[0][1])
            kernels = [(row["filters"], shape[0], row["size"], row["size"]) for shape in inputs]
            biases = (row["filters"],)
            if row.kind == "local":
                kernels, biases = [(places**2, *kernel) for kernel in kernels], (places**2, *biases)
            found[row.name] = Shapes((row["filters"], places, places), tuple(kernels), biases)
        elif row.kind in ("max", "avg"):
            places = _places(row, inputs[0][1])
            found[row.name] = Shapes((inputs[0][0], places, places))
        else:
            found[row.name] = Shapes(inputs[0])
    return found


def num_parameters(rows: list[Row], side: int, num_classes: int) -> int:
    """Return the number of weights and biases."""
    shapes = shapes_of(rows, side, num_classes)
    return sum(math.prod(shape) for row in rows for shape in (*shapes[row.name].weights, shapes[row.name].biases))


def run(rows: list[Row], images: np.ndarray, parameters: dict) -> dict[str, np.ndarray]:
    """Return the outputs of all layers for (N, 3, side, side) images in evaluation.

    parameters: layer -> (one array of weights for each input, array of biases), shaped as `shapes_of` says.
    """
    outputs = {"data": images}
    for row in rows:
        inputs = [outputs[name] for name in row.inputs]
        if row.kind in ("conv", "local", "fc"):
            weights, biases = parameters[row.name]
            result = sum(_WEIGHTED[row.kind](row, x, weight) for x, weight in zip(inputs, weights, strict=True))
            result = result + _over_batch(row, biases, result)
        else:
            (x,) = inputs
            result = _OTHERS[row.kind](row, x)
        outputs[row.name] = np.maximum(result, 0) if row.relu else result
    return outputs


def _places(row: Row, side: int) -> int:
    return 1 + math.ceil((side + 2 * row.numbers.get("pad", 0) - row["size"]) / row["stride"])


def _windows(row: Row, maps: np.ndarray, beyond: float) -> np.ndarray:
    """(N, C, side, side) -> (N, C, places, places, size, size)."""
    side, pad = maps.shape[2], int(row.numbers.get("pad", 0))
    places = _places(row, side)
    after = max(0, (places - 1) * row["stride"] + row["size"] - side - pad)
    padded = np.pad(maps, ((0, 0), (0, 0), (pad, after), (pad, after)), constant_values=beyond)
    windows = sliding_window_view(padded, (row["size"], row["size"]), (2, 3))
    return windows[:, :, :: row["stride"], :: row["stride"]][:, :, :places, :places]


def _conv(row: Row, maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.tensordot(_windows(row, maps, 0.0), weight, ([1, 4, 5], [1, 2, 3])), 3, 1)


def _local(row: Row, maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    windows = _windows(row, maps, 0.0)
    count, places = len(maps), windows.shape[2]
    result = np.einsum("ncyxhw,yxfchw->nfyx", windows, weight.reshape(places, places, *weight.shape[1:]), optimize=True)
    return result.reshape(count, -1, places, places)


def _fc(row: Row, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1) @ weight.T


def _over_batch(row: Row, biases: np.ndarray, result: np.ndarray) -> np.ndarray:
    if row.kind == "fc":
        return biases
    if row.kind == "conv":
        return biases[:, None, None]
    return biases.T.reshape(result.shape[1:])


def _max(row: Row, maps: np.ndarray) -> np.ndarray:
    return _windows(row, maps, -np.inf).max((4, 5))


def _avg(row: Row, maps: np.ndarray) -> np.ndarray:
    return _windows(row, maps, 0.0).sum((4, 5)) / row["size"] ** 2


def _across_maps(row: Row, maps: np.ndarray) -> np.ndarray:
    size, squares, sums = row["size"], maps**2, np.empty_like(maps)
    for channel in range(maps.shape[1]):
        first = channel - size // 2
        sums[:, channel] = squares[:, max(first, 0) : first + size].sum(1)
    return maps * (row["div"] + row["scale"] / size * sums) ** -row["pow"]


def _within_maps(row: Row, maps: np.ndarray) -> np.ndarray:
    size, side, sums = row["size"], maps.shape[2], np.empty_like(maps)
    for y in range(side):
        for x in range(side):
            top, left = y - size // 2, x - size // 2
            window = maps[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            sums[:, :, y, x] = (window**2).sum((2, 3))
    return maps * (row["div"] + row["scale"] / size**2 * sums) ** -row["pow"]


def _dropout(row: Row, x: np.ndarray) -> np.ndarray:
    return x * row["keep"]


_WEIGHTED = {"conv": _conv, "local": _local, "fc": _fc}
_OTHERS = {"max": _max, "avg": _avg, "cmrnorm": _across_maps, "rnorm": _within_maps, "hs": _dropout}

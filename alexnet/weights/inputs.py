"""What images become before they reach an imported network: its preprocessing, and Caffe's mean files."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import Architecture
from alexnet.weights.caffe_file import read_binaryproto
from alexnet.weights.found import Mean

# The mean over the pixels of ILSVRC-2012's training images that Caffe's networks are used with, RGB (BVLC/caffe
# python/caffe/imagenet/ilsvrc_2012_mean.npy, averaged over its positions).
IMAGENET_MEAN = (122.67891434, 116.66876762, 104.00698793)
_NUMBERS = re.compile(r"\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*")
LARGEST_SIDE = 4096
"""Of squares, pixels: each has a mean image in memory."""


def default_resize(image_size: int) -> int:
    """Side of the squares that crops of `image_size` are cut from: 256 for 224 and 227, and in that proportion."""
    return 256 if image_size in (224, 227) else max(image_size, round(image_size * 256 / 224))


def make_preprocessing(
    architecture: Architecture, image_size: int, mean: Mean | None, std: Sequence[float] | None, resize: int | None
) -> tuple[Preprocessing, list[str]]:
    """The preprocessing of a network, and sentences about what was assumed.

    mean: None takes the usual one. std: of the channels, for inputs of unit scale. resize: side of the squares in
    pixels, None: that of the mean image, or the usual one. Raises UserError for values that do not go together.
    """
    notes = []
    unit = architecture.input_scale == "unit"
    if std is not None and not unit:
        raise UserError(f"--std is for networks with inputs of unit scale; {architecture.name} takes pixels of 0-255.")
    size = resize or (len(mean.values) if mean is not None and mean.values.ndim == 3 else default_resize(image_size))
    if size < image_size:
        raise UserError(f"--resize {size} is smaller than the network's input of {image_size} pixels.")
    if size > LARGEST_SIDE:
        raise UserError(f"--resize {size:,} is too large; images are made squares of at most {LARGEST_SIDE:,} pixels.")
    if unit:
        return _unit(architecture, image_size, size, mean, std), notes
    if mean is None:
        mean = Mean(np.array(IMAGENET_MEAN, np.float32), "ImageNet's mean colour")
        notes.append(
            "The file does not hold the mean that was subtracted; ImageNet's mean colour is taken (R 122.7, G 116.7, "
            "B 104.0). --mean FILE gives the network's own."
        )
    if mean.values.ndim == 3 and mean.values.shape[:2] != (size, size):
        raise UserError(
            f"{mean.origin} is of {mean.values.shape[1]} x {mean.values.shape[0]} pixels, and the images are made "
            f"squares of {size}: leave out --resize, or give a mean of three numbers."
        )
    image = torch.from_numpy(mean.values).expand(size, size, 3).contiguous()
    # An image of means belongs to the square: Caffe cuts it where the crop is cut.
    mode = "at_crop" if mean.values.ndim == 3 else "channel"
    return Preprocessing(size, image_size, "pixels", architecture.channel_order, mode, image), notes


def _unit(
    architecture: Architecture, image_size: int, size: int, mean: Mean | None, std: Sequence[float] | None
) -> Preprocessing:
    values = Preprocessing.channel_mean if mean is None else tuple(float(value) for value in mean.values.reshape(-1))
    if len(values) != 3 or max(values) > 1.0:
        raise UserError(
            f"{architecture.name} takes inputs of unit scale: its mean is three numbers from 0 to 1, such as "
            "0.485,0.456,0.406."
        )
    deviations = Preprocessing.channel_std if std is None else tuple(float(value) for value in std)
    if len(deviations) != 3 or not all(0 < value <= 10 for value in deviations):
        raise UserError("--std takes three numbers above 0, such as 0.229,0.224,0.225.")
    image = (255 * torch.tensor(values)).expand(size, size, 3).contiguous()
    order = architecture.channel_order
    return Preprocessing(size, image_size, "unit", order, "channel", image, values, deviations)  # type: ignore[arg-type]


def read_numbers(text: str, option: str) -> tuple[float, float, float]:
    """Three numbers with commas between. Raises UserError for anything else."""
    match = _NUMBERS.fullmatch(text)
    try:
        assert match is not None
        return float(match[1]), float(match[2]), float(match[3])
    except (AssertionError, ValueError):
        raise UserError(f"{option} {text!r} is not three numbers with commas between.") from None


def read_mean(given: str | Path | Sequence[float], architecture: Architecture) -> Mean:
    """The mean that a person gives: three numbers or their text, a .binaryproto of Caffe, an .npy of (3,) or (3, S, S).

    Numbers and .npy are in the order of the network's channels (blue first for Caffe's); a .binaryproto always has blue
    first. Raises UserError for anything else.
    """
    in_order = architecture.channel_order == "bgr"
    if not isinstance(given, str | Path):
        return Mean(_as_image(np.array(given), Path("mean"), in_order), "mean")
    path = Path(given)
    if _NUMBERS.fullmatch(str(given)) and not path.exists():
        return Mean(_as_image(np.array(read_numbers(str(given), "--mean")), Path("--mean"), in_order), "--mean")
    if not path.is_file():
        raise UserError(f"There is no mean file {path}; --mean takes a .binaryproto, an .npy or three numbers.")
    with path.open("rb") as file:
        is_npy = file.read(6) == b"\x93NUMPY"
    if is_npy:
        return Mean(_as_image(_read_npy(path), path, in_order), path.name)
    return Mean(_as_image(read_binaryproto(path), path, True), path.name)


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, TypeError, OSError, EOFError, OverflowError, tokenize.TokenError) as error:
        raise UserError(f"{path} cannot be read as a mean: {str(error).splitlines()[0]}") from None


def _as_image(array: np.ndarray, path: Path, blue_first: bool) -> np.ndarray:
    """(3,) or (S, S, 3) float32 RGB of an array (3,) or (3, S, S)."""
    shown = " x ".join(map(str, array.shape))
    square = array.ndim == 3 and array.shape[1] == array.shape[2] <= LARGEST_SIDE
    if array.shape[:1] != (3,) or not (array.ndim == 1 or square) or array.dtype.kind not in "fiu":
        raise UserError(f"{path} is an array of {shown}; a mean is 3 numbers, or a square image of 3 x S x S.")
    values = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds numbers that are not finite.")
    values = values[::-1] if blue_first else values
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))

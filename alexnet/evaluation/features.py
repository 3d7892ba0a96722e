"""What a layer says of every image: features, streamed batch by batch and kept in one file that is read as it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from alexnet.errors import RunError
from alexnet.evaluation.evaluator import evaluation_mode, in_batches, square_batches
from alexnet.evaluation.views import cut_views, view_crops, weighted_views
from alexnet.models import AlexNet, Architecture
from alexnet.models.architecture import Dropout
from alexnet.ops.working_copy import working_copies
from alexnet.runtime.files import write_atomically

if TYPE_CHECKING:
    from alexnet.data.preprocessing import Preprocessing
    from alexnet.data.squares import ImageSet
    from alexnet.training.checkpoint import Checkpoint

Precision = Literal["float16", "float32"]


def last_hidden_layer(architecture: Architecture) -> str:
    """The layer whose output the classifier reads, before dropout: the ReLU of fc7 (paper 6.1)."""
    return next(layer.name for layer in reversed(architecture.layers[:-1]) if not isinstance(layer, Dropout))


def network_digest(checkpoint: Checkpoint) -> str:
    """32 hexadecimal digits: equal for checkpoints that compute the same features.

    They follow from the weights, the layers, and from what is done to the pixels before.
    """
    digest = hashlib.sha256(repr(checkpoint.architecture).encode())
    for name, value in checkpoint.preprocessing.to_dict().items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    for name, weight in checkpoint.model_state.items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def stream_features(
    model: AlexNet,
    preprocessing: Preprocessing,
    images: ImageSet,
    layer: str,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """The layer's outputs for the centre crops of all images in order: (n, D) float32 on `device`, a batch at a time.

    `model` is on `device` and runs in evaluation mode; its own mode is restored after every batch. Maps are flattened
    as (channel, row, column). Raises UserError for a name that is no layer.
    """
    done = 0
    for squares in square_batches(images, in_batches(len(images), batch_size), num_workers):
        yield layer_outputs(model, preprocessing, squares, layer, device=device, dtype=dtype).flatten(1)
        done += len(squares)
        if on_progress is not None:
            on_progress(done, len(images))


def layer_outputs(
    model: AlexNet,
    preprocessing: Preprocessing,
    squares: Tensor,
    layer: str,
    *,
    views: str = "center",
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A layer's outputs for squares (N, S, S, 3) uint8: (N, ...) float32 on `device`, the mean over the views.

    batch_size: views per forward pass. Modes are restored as in `stream_features`.
    """
    weighted = weighted_views(view_crops(views, squares.shape[1], preprocessing.crop_size))
    crops, offsets, flips = cut_views(squares.to(device), [view for view, _ in weighted], preprocessing.crop_size)
    outputs = []
    with evaluation_mode([model]), working_copies(list(model.parameters()), dtype, keep=False), torch.inference_mode():
        for start in range(0, len(crops), batch_size):
            part = slice(start, start + batch_size)
            inputs = preprocessing.normalize(crops[part], offsets[part], flips[part], dtype=dtype)
            outputs.append(model.output_of(layer, inputs).float())
        by_view = torch.cat(outputs).unflatten(0, (len(squares), len(weighted)))
        shares = torch.tensor([share for _, share in weighted], device=by_view.device)
        return by_view[:, 0] if len(weighted) == 1 else torch.einsum("v,nv...->n...", shares, by_view)


def write_features(path: Path, batches: Iterable[Tensor], count: int, precision: Precision = "float16") -> None:
    """Write `count` rows of features, given in batches (n, D), as one .npy file: atomically, one batch in memory.

    float16 holds three decimal digits and values up to 65,504, enough for neighbours; half the disk and half the
    reading. Raises RunError for values that do not fit.
    """
    batches = iter(batches)
    first = next(batches)
    width, dtype = first.shape[1], np.dtype(precision)

    def write(file: BinaryIO) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, width)}
        np.lib.format.write_array_header_1_0(file, header)
        rows = 0
        for batch in chain([first], batches):
            stored = batch.to(getattr(torch, precision))
            if not bool(stored.isfinite().all()):
                raise RunError(f"features from row {rows} on are not finite or too large for {precision}")
            file.write(stored.cpu().numpy().tobytes())
            rows += len(stored)
        assert rows == count, f"{rows} rows of features where {count} were announced"

    write_atomically(path, write, count * width * dtype.itemsize)


def open_features(path: Path) -> np.ndarray:
    """The features of a file, (N, D), mapped into memory: what is not looked at is not read."""
    # Copy on write, since torch warns of memory that it must not write to.
    return np.load(path, mmap_mode="c", allow_pickle=False)

"""Error rates of one network, or of an ensemble, over a set of images (paper 4.1 and 6; paper.md section 4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.errors import DivergedError, UserError
from alexnet.evaluation.report import EvaluationReport, Protocol, summarize
from alexnet.evaluation.views import cut_views, view_crops, weighted_views
from alexnet.ops.working_copy import working_copies
from alexnet.runtime.distributed import ALONE, World
from alexnet.runtime.process_settings import exact_float32

if TYPE_CHECKING:
    from alexnet.data.preprocessing import Preprocessing
    from alexnet.data.squares import ImageSet


def evaluate(
    models: Sequence[nn.Module],
    preprocessings: Sequence[Preprocessing],
    images: ImageSet,
    *,
    classes: Sequence[str],
    class_names: Sequence[str] | None = None,
    views: str = "ten_crop",
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    num_workers: int = 2,
    world: World = ALONE,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate `models`, already on `device`, as one ensemble on every image of `images`, each counted once.

    Softmax probabilities (float32) are averaged over views, then over models (paper 4.1; S layer.cu:1804-1839); error
    rates and loss are those of the mean. Each model has its own preprocessing and crop size; all share `classes`.
    `batch_size` counts views per forward pass and does not change the result beyond rounding. `dtype` is that of the
    network's inputs. The models' training or evaluation modes are restored afterwards. `num_workers` threads decode
    images that are not held in memory. `on_progress(images done, images in all)`. The processes of `world` take turns
    at the batches, which are those that one process alone would make, and all return the same report.

    Raises UserError when models, images and classes do not fit each other; RunError when a network's output is not
    finite, naming the first such image.
    """
    labels = np.asarray(images.labels, dtype=np.int64)
    _check(models, preprocessings, images, labels, classes)
    started = time.perf_counter()
    # Zero where another process has the result: the sum over processes is the whole, to the last bit.
    probabilities = torch.zeros(len(images), len(classes), dtype=torch.float32, device=device)
    finite = torch.zeros(len(images), dtype=torch.uint8, device=device)
    num_views = len(view_crops(views, images.image_size, preprocessings[0].crop_size))
    batches = in_batches(len(images), max(1, batch_size // num_views))[world.rank :: world.size]
    weights = [weight for model in models for weight in model.parameters()]
    with evaluation_mode(models), working_copies(weights, dtype, keep=False), torch.inference_mode():
        for batch, squares in zip(batches, square_batches(images, batches, num_workers), strict=True):
            part = slice(batch.start, batch.stop)
            # Nothing is read back from the device inside the loop, so that batches can queue up on it.
            on_device = [squares.to(device)] * len(models)
            mean, finite[part] = ensemble_probabilities(
                models, preprocessings, on_device, views=views, batch_size=batch_size, dtype=dtype
            )
            if mean.shape[1] != len(classes):
                raise UserError(f"The model has {mean.shape[1]} outputs, but the data has {len(classes)} classes.")
            probabilities[part] = mean
            if on_progress is not None:
                on_progress(len(images) if batch is batches[-1] else part.stop, len(images))
    world.sum(probabilities)
    _check_finite(world.sum(finite).cpu().numpy() > 0, images)
    crop_sizes = tuple(preprocessing.crop_size for preprocessing in preprocessings)
    return summarize(
        probabilities.cpu().numpy(),
        labels,
        protocol=Protocol(views, images.image_size, crop_sizes, seconds=time.perf_counter() - started),
        keys=[str(key) for key in images.keys],
        classes=classes,
        class_names=class_names or classes,
    )


def ensemble_probabilities(
    models: Sequence[nn.Module],
    preprocessings: Sequence[Preprocessing],
    squares: Sequence[Tensor],
    *,
    views: str,
    batch_size: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Mean class probabilities over views and models: (N, C) float32, and (N,) bool: were all outputs finite?

    squares: one tensor (N, S, S, 3) uint8 per model, on that model's device; S may differ from model to model.
    The models must be in evaluation mode already.
    """
    total: Tensor | None = None
    finite: Tensor | None = None
    for model, preprocessing, model_squares in zip(models, preprocessings, squares, strict=True):
        mean, ok = _view_mean(model, preprocessing, model_squares, views, batch_size, dtype)
        if total is not None and mean.shape != total.shape:
            raise UserError(
                f"An ensemble's models must know the same classes; one has {total.shape[1]}, another {mean.shape[1]}."
            )
        total = mean if total is None else total + mean
        finite = ok if finite is None else finite & ok
    assert total is not None and finite is not None
    return total / len(models), finite


def _view_mean(
    model: nn.Module, preprocessing: Preprocessing, squares: Tensor, views: str, batch_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    crop_size = preprocessing.crop_size
    weighted = weighted_views(view_crops(views, squares.shape[1], crop_size))
    crops, offsets, flips = cut_views(squares, [view for view, _ in weighted], crop_size)
    outputs = []
    for start in range(0, len(crops), batch_size):
        part = slice(start, start + batch_size)
        inputs = preprocessing.normalize(crops[part], offsets[part], flips[part], dtype=dtype)
        outputs.append(model(inputs).float())
    logits = torch.cat(outputs).unflatten(0, (len(squares), len(weighted)))  # (N, V, C)
    weights = torch.tensor([weight for _, weight in weighted], dtype=torch.float32, device=logits.device)
    mean = (logits.softmax(dim=2) * weights[:, None]).sum(dim=1)
    return mean, logits.isfinite().all(dim=2).all(dim=1)


@contextmanager
def evaluation_mode(models: Sequence[nn.Module]) -> Iterator[None]:
    """Put the models into evaluation mode, and every module of theirs back into its own mode afterwards.

    Inside, float32 is exact, as it is in training: what a checkpoint says of an image must not depend on the process.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with exact_float32():
            yield
    finally:
        for module, training in modes:
            module.training = training


def in_batches(count: int, size: int) -> list[range]:
    """The numbers 0 to count - 1 in runs of `size`, the last of which may be shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def square_batches(images: ImageSet, batches: Sequence[range], num_workers: int) -> Iterator[Tensor]:
    """The squares of some runs of images, each (n, S, S, 3) uint8; decoded a batch ahead where not in memory."""
    if images.array is not None or num_workers == 0:
        for batch in batches:
            yield _stack(images, batch)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        pending: list[list[Future[np.ndarray]]] = []
        try:
            for batch in batches:
                pending.append([pool.submit(images.square, index) for index in batch])
                if len(pending) == 2:
                    yield torch.from_numpy(np.stack([future.result() for future in pending.pop(0)]))
            for futures in pending:
                yield torch.from_numpy(np.stack([future.result() for future in futures]))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stack(images: ImageSet, batch: range) -> Tensor:
    if images.array is None:
        return torch.from_numpy(np.stack([images.square(index) for index in batch]))
    squares = images.array[batch.start : batch.stop]
    return torch.from_numpy(squares if squares.flags.writeable else squares.copy())


def _check(
    models: Sequence[nn.Module],
    preprocessings: Sequence[Preprocessing],
    images: ImageSet,
    labels: np.ndarray,
    classes: Sequence[str],
) -> None:
    if not models or len(models) != len(preprocessings):
        raise UserError(
            f"Give one preprocessing per model: {len(models)} models, {len(preprocessings)} preprocessings."
        )
    if len(images) == 0:
        raise UserError("There is no image to evaluate; check the data set's validation split.")
    for preprocessing in preprocessings:
        if preprocessing.image_size != images.image_size:
            raise UserError(
                f"The images are squares of {images.image_size} pixels, but a model was trained on squares of "
                f"{preprocessing.image_size}; load the images at that size, or evaluate that model by itself."
            )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"The data has labels from {labels.min()} to {labels.max()}, but the model knows {len(classes)} classes; "
            "evaluate it on data with the classes that it was trained on."
        )


def _check_finite(finite: np.ndarray, images: ImageSet) -> None:
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise DivergedError(
            f"The network's output is not finite for {len(bad)} of {len(finite)} images, the first being "
            f"{images.keys[bad[0]]}; the weights have probably diverged, or precision float32 is needed."
        )

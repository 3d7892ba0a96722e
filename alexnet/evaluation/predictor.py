"""Names and probabilities for single images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import nn

from alexnet.data.decode import UnreadableImage
from alexnet.data.squares import to_square
from alexnet.errors import UserError
from alexnet.evaluation.array_inputs import Layout, ValueRange
from alexnet.evaluation.evaluator import ensemble_probabilities, evaluation_mode
from alexnet.evaluation.inputs import ImageInput, NamedImage, open_inputs
from alexnet.runtime.process_settings import usual_modes

if TYPE_CHECKING:
    from alexnet.data.preprocessing import Preprocessing
    from alexnet.training.checkpoint import Checkpoint

IMAGES_PER_BATCH = 32


@dataclass(frozen=True)
class Guess:
    """One class and its probability in [0, 1]."""

    class_id: str
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one input, best first; or no guesses, and why."""

    input: str
    guesses: list[Guess]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        guesses = [{"class": g.class_id, "name": g.name, "probability": g.probability} for g in self.guesses]
        return {"input": self.input, "guesses": guesses, "error": self.error}


@dataclass(frozen=True)
class Predictor:
    """One network or an ensemble, ready to be asked: models on `device`, one preprocessing each, shared classes."""

    models: Sequence[nn.Module]
    preprocessings: Sequence[Preprocessing]
    classes: Sequence[str]
    class_names: Sequence[str]
    device: torch.device
    dtype: torch.dtype = torch.float32


def load_predictor(
    checkpoints: str | Path | Checkpoint | Sequence[str | Path | Checkpoint],
    *,
    device: str = "auto",
    precision: str | None = None,
) -> Predictor:
    """Make a Predictor of checkpoints (files, run folders or loaded ones); several are an ensemble.

    precision: bfloat16, float32 or auto; None is that of the first one's training.
    Raises UserError when one cannot be read or when they do not know the same classes.
    """
    from alexnet.runtime.device import choose_device, choose_precision
    from alexnet.training.checkpoint import Checkpoint, build_model, load_checkpoint

    if isinstance(checkpoints, str | Path | Checkpoint):
        checkpoints = [checkpoints]
    if not checkpoints:
        raise UserError("Give at least one checkpoint.")
    loaded = [item if isinstance(item, Checkpoint) else load_checkpoint(item) for item in checkpoints]
    for given, checkpoint in zip(checkpoints, loaded, strict=True):
        if checkpoint.classes != loaded[0].classes:
            name = "one" if isinstance(given, Checkpoint) else given
            raise UserError(
                f"The checkpoints of an ensemble must know the same classes in the same order; {name} differs."
            )
    target = choose_device(device)
    return Predictor(
        models=[build_model(checkpoint).to(target) for checkpoint in loaded],
        preprocessings=[checkpoint.preprocessing for checkpoint in loaded],
        classes=loaded[0].classes,
        class_names=loaded[0].class_names,
        device=target,
        dtype=choose_precision(precision or _trained_precision(loaded[0]), target),
    )


def _trained_precision(checkpoint: Checkpoint) -> str:
    return checkpoint.recipe.get("runtime", {}).get("precision", "auto")


def predict(
    predictor: Predictor | str | Path | Checkpoint,
    inputs: ImageInput | Iterable[ImageInput],
    *,
    top: int = 5,
    views: str = "center",
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
    stdin: BinaryIO | None = None,
) -> list[Prediction]:
    """Return the `top` most probable classes of every image, in order.

    Args:
        predictor: A Predictor, a checkpoint, or the path of one.
        inputs: One image, or a list, a tuple, a generator or another ordered collection of images. An image is one of:

            - a path (str or PathLike; "~" is the user's folder); a folder stands for all image files below it;
            - an http, https, file or data address (str);
            - "-" for standard input, which holds an image, or a path or an address per line;
            - the bytes of an image file (bytes, bytearray, memoryview);
            - a file opened in binary mode, BytesIO, an upload: anything whose `read` returns bytes. It is read from its
              beginning and stays open;
            - a PIL image of any mode;
            - a NumPy array, or what becomes one by `np.asarray`: (H, W), (H, W, C) or (C, H, W) with C = 1 (gray),
              3 (RGB) or 4 (RGB and opacity, which is laid over white), or a batch (N, H, W, C) or (N, C, H, W), which
              stands for N images. uint8 from 0 to 255, bool, or other numbers with `value_range`;
            - a torch tensor on any device, of the same shapes and numbers.

            A generator is consumed as the predictions are made, up to 32 images at a time.
        top: Number of predictions per image.
        views: "center", "flip" or "ten_crop"; the probabilities are averaged over the views.
        layout: Which axis of arrays and tensors holds the channels: "HWC" or "CHW". It is needed only where the shape
            allows both, as (3, 224, 3) does.
        value_range: The values of black and of white in arrays and tensors, for example (0, 1). It is needed for all
            types of numbers but uint8 and bool: the values alone do not tell.
        stdin: What "-" reads; None: `sys.stdin`.

    Returns:
        One Prediction per image. One that is missing or damaged has an `error` and no guesses; so has an input of
        a collection that is wrong in itself.

    Raises:
        UserError: For a bad checkpoint, `top`, `views`, `layout` or `value_range`; for what is not an image; for
            a dict, a set, and a collection without images; and for a single input that is wrong in itself: an array
            whose shape or numbers are not clear, a closed file or one opened as text, an empty text.
    """
    return list(
        predict_each(predictor, inputs, top=top, views=views, layout=layout, value_range=value_range, stdin=stdin)
    )


def predict_each(
    predictor: Predictor | str | Path | Checkpoint,
    inputs: ImageInput | Iterable[ImageInput],
    *,
    top: int = 5,
    views: str = "center",
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Prediction]:
    """Yield what `predict` returns as it is made, a batch at a time; arguments and errors are the same."""
    if top < 1:
        raise UserError(f"top must be at least 1, not {top}.")
    if not isinstance(predictor, Predictor):
        predictor = load_predictor(predictor)
    opened = open_inputs(inputs, stdin, layout=layout, value_range=value_range)
    with ThreadPoolExecutor(4) as pool:
        while batch := list(islice(opened, IMAGES_PER_BATCH)):
            pixels = list(pool.map(_read, batch))
            yield from _predict_batch(predictor, batch, pixels, top, views)


def _read(image: NamedImage) -> np.ndarray | str:
    """The pixels, or why there are none."""
    try:
        return image.read()
    except UnreadableImage as error:
        return str(error) or "it cannot be read"


def _predict_batch(
    predictor: Predictor, batch: Sequence[NamedImage], pixels: Sequence[np.ndarray | str], top: int, views: str
) -> Iterator[Prediction]:
    arrays = [item for item in pixels if not isinstance(item, str)]
    rows = iter(class_probabilities(predictor, arrays, views) if arrays else [])
    for image, item in zip(batch, pixels, strict=True):
        if isinstance(item, str):
            yield Prediction(image.name, [], item)
            continue
        row = next(rows)
        if row is None:
            yield Prediction(image.name, [], "the network's output is not finite")
            continue
        yield Prediction(image.name, best_guesses(predictor, row, top))


def best_guesses(predictor: Predictor, probabilities: np.ndarray, top: int) -> list[Guess]:
    """The `top` most probable classes of one image, best first, from its probabilities (C,)."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return [Guess(predictor.classes[i], predictor.class_names[i], float(probabilities[i])) for i in map(int, best)]


def class_probabilities(
    predictor: Predictor, arrays: Sequence[np.ndarray], views: str = "center"
) -> list[np.ndarray | None]:
    """Probabilities (C,) float32 of each image (H, W, 3) uint8 RGB, in one batch; None where they are not finite.

    Raises UserError for unknown `views`, and for a model with another number of outputs than classes.
    """
    sizes = {preprocessing.image_size for preprocessing in predictor.preprocessings}
    squares = {
        size: torch.from_numpy(np.stack([to_square(array, size) for array in arrays])).to(predictor.device)
        for size in sizes
    }
    # Not around the generator: its caller would run in these modes between two predictions.
    with usual_modes(), evaluation_mode(predictor.models), torch.inference_mode():
        mean, finite = ensemble_probabilities(
            predictor.models,
            predictor.preprocessings,
            [squares[preprocessing.image_size] for preprocessing in predictor.preprocessings],
            views=views,
            batch_size=128,
            dtype=predictor.dtype,
        )
    if mean.shape[1] != len(predictor.classes):
        raise UserError(f"The model has {mean.shape[1]} outputs, but {len(predictor.classes)} class names were given.")
    return [row if ok else None for row, ok in zip(mean.cpu().numpy(), finite.cpu().numpy(), strict=True)]

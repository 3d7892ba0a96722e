"""A checkpoint that is being served: what it is, and what it can be asked. Everything here is called in one thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alexnet.errors import RunError, UserError
from alexnet.evaluation.features import last_hidden_layer, layer_outputs
from alexnet.evaluation.predictor import Predictor, class_probabilities, load_predictor
from alexnet.models import AlexNet
from alexnet.models.architecture import LayerShapes, layer_shapes
from alexnet.ops.working_copy import working_copies
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.checkpoint_files import checkpoint_file, run_folder
from alexnet.visualize import center_crop, grad_cam, kernel_banks, last_maps, layer_activations


class CropBox(NamedTuple):
    """The part of an upright image that a network looks at, in the image's pixels."""

    left: float
    top: float
    side: float


class LayerMaps(NamedTuple):
    """What a layer makes of an image: its strongest maps, or all its units."""

    layer: str
    kind: str
    """Of the layer: Convolution, ReLU, ..."""
    shape: tuple[int, ...]
    """Of the whole output: (channels, height, width) or (units,)."""
    channels: list[int]
    """Which maps these are, the strongest (by their mean size) first; empty for units."""
    values: np.ndarray
    """(maps, height, width), or (units,), float32."""


@dataclass(frozen=True)
class Network:
    """One checkpoint, ready to be asked.

    id: "a" or "b", its name in requests; title: what people call it; file: the checkpoint's.
    """

    id: str
    title: str
    file: Path
    checkpoint: Checkpoint
    predictor: Predictor
    views: str = "center"

    @property
    def model(self) -> AlexNet:
        """The network itself, on the predictor's device."""
        model = self.predictor.models[0]
        assert isinstance(model, AlexNet)
        return model

    @property
    def square_size(self) -> int:
        """Side of the squares that it is given, pixels."""
        return self.checkpoint.preprocessing.image_size

    @property
    def layers(self) -> list[LayerShapes]:
        """Its layers with their shapes, in order."""
        return layer_shapes(self.checkpoint.architecture, self.checkpoint.num_classes, self.checkpoint.image_size)

    @property
    def last_maps(self) -> str:
        """The layer that says where the network looked, unless another is asked for."""
        return last_maps(self.checkpoint.architecture)

    def crop_box(self, height: int, width: int) -> CropBox:
        """What it sees of an image of that size: the centre crop of the centre square."""
        short = min(height, width)
        crop = self.checkpoint.preprocessing.crop_size
        margin = (self.square_size - crop) // 2 * short / self.square_size
        return CropBox((width - short) / 2 + margin, (height - short) / 2 + margin, crop * short / self.square_size)

    def probabilities(self, squares: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probabilities (C,) float32 of each square (S, S, 3) uint8, in one batch. RunError where one is not finite."""
        # The weights never change here: copies of them in bfloat16 may stay.
        with working_copies(self.model.parameters(), self.predictor.dtype, keep=True):
            rows = class_probabilities(self.predictor, squares, self.views)
        finite = [row for row in rows if row is not None]
        if len(finite) != len(rows):
            raise RunError(f"The outputs of {self.file} are not finite; `alexnet doctor` says more about it.")
        return finite

    def where_it_looked(self, square: np.ndarray, class_index: int, layer: str | None) -> np.ndarray:
        """Grad-CAM of a class: (h, w) float32, at least 0, over the crop. Raises UserError for what is not there."""
        inputs = self._inputs(square)
        heat = grad_cam(self.model, inputs, class_index, layer)[0]
        return heat.detach().cpu().numpy()

    def activations(self, square: np.ndarray, max_maps: int, layers: Sequence[str] | None = None) -> list[LayerMaps]:
        """What each layer makes of a square: of maps the `max_maps` strongest, of units all."""
        kinds = {row.layer.name: type(row.layer).__name__ for row in self.layers}
        outputs = layer_activations(self.model, self._inputs(square), layers)
        return [_strongest(name, kinds[name], output[0].cpu().numpy(), max_maps) for name, output in outputs.items()]

    def kernels(self) -> list[np.ndarray]:
        """The first convolution's kernels (O, 3, h, w) float32, one array a bank; none where they are not RGB's."""
        try:
            return kernel_banks(self.model)
        except UserError:
            return []

    @property
    def feature_layer(self) -> str:
        """The layer by whose outputs images are near to each other."""
        return last_hidden_layer(self.checkpoint.architecture)

    def features(self, squares: torch.Tensor, layer: str, views: str) -> np.ndarray:
        """(n, D) float32: a layer's outputs for squares (n, S, S, 3) uint8, the mean over the views."""
        outputs = layer_outputs(
            self.model, self.checkpoint.preprocessing, squares, layer, views=views, device=self.predictor.device
        )
        return outputs.flatten(1).cpu().numpy()

    def _inputs(self, square: np.ndarray) -> torch.Tensor:
        return center_crop(square, self.checkpoint.preprocessing, self.predictor.device).inputs


def _strongest(name: str, kind: str, output: np.ndarray, max_maps: int) -> LayerMaps:
    if output.ndim == 1:
        return LayerMaps(name, kind, output.shape, [], output)
    strength = np.abs(output).mean(axis=(1, 2))
    chosen = np.argsort(-strength, kind="stable")[:max_maps]
    return LayerMaps(name, kind, output.shape, chosen.tolist(), output[chosen])


def load_networks(paths: Sequence[Path], *, device: str, views: str = "center") -> list[Network]:
    """The networks of one or two checkpoints (files or runs' folders), after a first pass through each.

    Raises UserError for what is no checkpoint, and RunError for a network whose outputs are not finite.
    """
    # Without what resuming needs, which is as large as the weights.
    loaded = [(checkpoint_file(path), replace(load_checkpoint(path), training_state=None)) for path in paths]
    titles = titles_of([file for file, _ in loaded])
    networks = [
        Network(identifier, title, file, checkpoint, load_predictor(checkpoint, device=device), views)
        for identifier, title, (file, checkpoint) in zip("ab", titles, loaded, strict=False)
    ]
    for network in networks:
        # The first pass is slow, and shows whether the network works.
        network.probabilities([np.zeros((network.square_size, network.square_size, 3), np.uint8)])
    return networks


def titles_of(files: Sequence[Path]) -> list[str]:
    """Names to tell the checkpoints apart: of the run's folder or of the file, with as many folders as it takes."""
    paths = [run_folder(file) or file.resolve().with_suffix("") for file in files]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, 1)]


def count_parameters(checkpoint: Checkpoint) -> int:
    """Of the whole network."""
    return sum(math.prod(tensor.shape) for tensor in checkpoint.model_state.values())


def results_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The last evaluation of its training with its protocol; empty where there was none."""
    known = ("top1_error", "top5_error", "views", "num_images", "split")
    return {name: checkpoint.metrics[name] for name in known if name in checkpoint.metrics}

"""A small network for drawn shapes as a checkpoint, for tests of what is done with a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.shapes import CLASSES
from alexnet.models import AlexNet, Architecture, build_network
from alexnet.models.architecture import Convolution, Dropout, Linear, MaxPool, ReLU
from alexnet.training.checkpoint import Checkpoint, save_checkpoint

TWO_TOWERS = Architecture(
    name="small",
    summary="For tests.",
    source="none",
    image_size=24,
    pad_right_bottom=1,
    input_scale="pixels",
    channel_order="rgb",
    initialization="torch_default",
    layers=(
        Convolution("conv1", channels=8, kernel=5, stride=2),
        ReLU("relu1"),
        MaxPool("pool1", size=3, stride=2, ceil_mode=False),
        Convolution("conv2", channels=20, kernel=3, padding=1, groups=2),
        ReLU("relu2"),
        Linear("fc7", features=16),
        ReLU("relu7"),
        Dropout("drop7", rate=0.5, scaling="original"),
        Linear("fc8", features=None),
    ),
)


def write_checkpoint(
    path: Path,
    *,
    square: int = 28,
    data: object = "shapes:28",
    recipe: dict[str, Any] | None = None,
    seed: int = 0,
    model: AlexNet | None = None,
) -> Path:
    """Write the network with random weights, or `model`; square: the side of its images. Returns the path."""
    model = model or build_network(TWO_TOWERS, len(CLASSES), seed=seed)
    mean = torch.full((square, square, 3), 120.0)
    checkpoint = Checkpoint(
        architecture=TWO_TOWERS,
        num_classes=len(CLASSES),
        image_size=24,
        classes=CLASSES,
        class_names=tuple(name.replace("_", " ") for name in CLASSES),
        preprocessing=Preprocessing(square, 24, "pixels", "rgb", "center_crop", mean),
        recipe=recipe or {},
        data=str(data),
        step=7,
        epoch=1.5,
        metrics={},
        model_state=model.state_dict(),
        training_state=None,
        environment={},
    )
    save_checkpoint(path, checkpoint)
    return path

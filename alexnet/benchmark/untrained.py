"""A checkpoint that has learned nothing, for measuring speed where there is no other."""

from __future__ import annotations

from pathlib import Path

import torch

from alexnet.config import Recipe
from alexnet.data.preprocessing import Preprocessing
from alexnet.models import build_network
from alexnet.training.checkpoint import Checkpoint, save_checkpoint


def save_untrained(path: Path, model: str, num_classes: int = 1000) -> Path:
    """Write a variant with its initial weights. Raises UserError for an unknown one."""
    network = build_network(model, num_classes=num_classes)
    architecture = network.architecture
    crop_size = network.image_size
    # As the paper has it: 224 of 256, and in proportion for smaller inputs.
    square_size = max(crop_size, round(crop_size * 256 / 224))
    mean = torch.full((square_size, square_size, 3), 120.0)
    names = tuple(f"class {number}" for number in range(num_classes))
    checkpoint = Checkpoint(
        architecture=architecture,
        num_classes=num_classes,
        image_size=crop_size,
        classes=tuple(f"{number:04}" for number in range(num_classes)),
        class_names=names,
        preprocessing=Preprocessing(
            square_size, crop_size, architecture.input_scale, architecture.channel_order, "center_crop", mean
        ),
        recipe=Recipe().model_dump(mode="json"),
        data="nothing",
        step=0,
        epoch=0.0,
        metrics={},
        model_state=network.state_dict(),
        training_state=None,
        environment={},
    )
    save_checkpoint(path, checkpoint)
    return path

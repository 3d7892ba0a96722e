"""What an exported program says about itself: classes, inputs, results with their protocol; plain types for JSON."""

from __future__ import annotations

from typing import Any

from alexnet._version import __version__
from alexnet.exporting.formats import Weights
from alexnet.training.checkpoint import Checkpoint


def describe(checkpoint: Checkpoint, weights: Weights) -> dict[str, Any]:
    """The description, as docs/exports.md has it field by field."""
    preprocessing = checkpoint.preprocessing
    return {
        "producer": f"alexnet {__version__}",
        "model": checkpoint.architecture.name,
        "summary": checkpoint.architecture.summary,
        "weights": weights,
        "classes": list(checkpoint.classes),
        "class_names": list(checkpoint.class_names),
        "input": {
            "shape": ["batch", preprocessing.image_size, preprocessing.image_size, 3],
            "type": "uint8",
            "layout": "NHWC",
            "channels": "RGB",
            "from_image": (
                f"scale the shorter side to {preprocessing.image_size} px (bilinear with antialiasing when shrinking, "
                "bicubic when enlarging) and keep the centre square"
            ),
        },
        "preprocessing": {
            "inside": True,
            "crop_size": preprocessing.crop_size,
            "input_scale": preprocessing.input_scale,
            "channel_order": preprocessing.channel_order,
            "mean_mode": preprocessing.mean_mode,
            "mean_rgb": [round(float(value), 4) for value in preprocessing.mean_image.mean(dim=(0, 1))],
            "channel_mean": list(preprocessing.channel_mean),
            "channel_std": list(preprocessing.channel_std),
        },
        "trained_on": checkpoint.data,
        "step": checkpoint.step,
        "checkpoint": checkpoint.selection,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
    }

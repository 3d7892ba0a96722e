"""The formats that hold weights and no computation: safetensors, and the file of torchvision's alexnet."""

from __future__ import annotations

from pathlib import Path

from alexnet.exporting.formats import ExportReport, ExportSettings
from alexnet.reporting.progress import Progress
from alexnet.training.checkpoint import Checkpoint
from alexnet.weights.safetensors_file import write_safetensors
from alexnet.weights.torchvision_file import write_torchvision


def write_safetensors_file(
    checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress
) -> ExportReport:
    """The weights, with all else that the checkpoint knows in the header; `alexnet import` reads both again."""
    write_safetensors(checkpoint, output)
    notes = ["The header describes the network, its classes and its preprocessing; alexnet import reads it again."]
    return ExportReport("safetensors", output, "float32", output.stat().st_size, notes)


def write_torchvision_file(
    checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress
) -> ExportReport:
    """The weights under torchvision's names. Raises UserError for a network that torchvision does not have."""
    write_torchvision(checkpoint, output)
    preprocessing = checkpoint.preprocessing
    mean = ", ".join(f"{value:g}" for value in preprocessing.channel_mean)
    std = ", ".join(f"{value:g}" for value in preprocessing.channel_std)
    notes = [
        f"torchvision.models.alexnet(num_classes={checkpoint.num_classes}).load_state_dict(torch.load(FILE)) takes it.",
        f"Neither classes nor preprocessing are in it: Resize({preprocessing.image_size}), "
        f"CenterCrop({preprocessing.crop_size}), mean {mean}, deviation {std}.",
    ]
    return ExportReport("torchvision", output, "float32", output.stat().st_size, notes)

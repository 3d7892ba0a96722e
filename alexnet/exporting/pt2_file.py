"""A program of torch.export (.pt2): runs wherever torch does, without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import torch

from alexnet.exporting.description import describe
from alexnet.exporting.formats import ExportReport, ExportSettings
from alexnet.exporting.network import ImageClassifier
from alexnet.reporting.progress import Progress
from alexnet.runtime.files import write_atomically
from alexnet.training.checkpoint import Checkpoint, build_model


def write_pt2(checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress) -> ExportReport:
    """Write the program, with its description as the extra file `alexnet.json`; see `formats.Writer`."""
    classifier = ImageClassifier(build_model(checkpoint), checkpoint.preprocessing, logits=settings.logits)
    batch = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(classifier, (classifier.example(),), dynamic_shapes=batch)
    description = json.dumps(describe(checkpoint, settings.weights), indent=1)

    def write(file: BinaryIO) -> None:
        torch.export.save(program, file, extra_files={"alexnet.json": description})  # type: ignore[arg-type]

    write_atomically(output, write)
    return ExportReport("pt2", output, settings.weights, output.stat().st_size)

"""A program of torch.export (.pt2): runs wherever torch does, without this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from alexnet.exporting.formats import FORMATS, ExportReport, ExportSettings
from alexnet.exporting.network import ImageClassifier
from alexnet.exporting.program import Program, write_program
from alexnet.exporting.verification import Runner
from alexnet.reporting.progress import Progress
from alexnet.runtime.text import json_text
from alexnet.training.checkpoint import Checkpoint

DESCRIPTION_FILE = "alexnet.json"
"""The extra file with the classes and everything else that `describe` says."""


def write_pt2(checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress) -> ExportReport:
    """Write the program of torch.export; see `formats.Writer`."""
    return write_program(FORMATS["pt2"], _trace, checkpoint, output, settings, display)


def _trace(classifier: ImageClassifier, description: Mapping[str, Any]) -> Program:
    batch = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(classifier, (classifier.example(),), dynamic_shapes=batch)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it would carry paths of this machine into the file

    def save(file: BinaryIO) -> None:
        extra_files = {DESCRIPTION_FILE: json_text(description)}
        torch.export.save(program, file, extra_files=extra_files)  # type: ignore[arg-type]

    return Program(save, lambda path: _open(path, classifier.output_names), f"torch {torch.__version__}")


def _open(path: Path, output_names: tuple[str, ...]) -> Runner:
    with path.open("rb") as file:
        module = torch.export.load(file).module()  # type: ignore[arg-type]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
        return {name: output.numpy() for name, output in zip(output_names, outputs, strict=True)}

    return run

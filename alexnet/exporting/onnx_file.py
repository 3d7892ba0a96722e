"""An ONNX model: images in, probabilities out, its layers under their own names. Needs the extra `export`."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from alexnet._version import __version__
from alexnet.errors import UserError
from alexnet.exporting.formats import FORMATS, ExportReport, ExportSettings
from alexnet.exporting.native_norm import translations, use_native_norms
from alexnet.exporting.network import ImageClassifier
from alexnet.exporting.onnx_names import name_layers
from alexnet.exporting.program import Program, write_program
from alexnet.exporting.verification import Runner
from alexnet.reporting.progress import Progress
from alexnet.runtime.text import json_text, valid_text
from alexnet.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    import onnxruntime

OPSET = 18
"""Version of the operators: the oldest that the exporter writes as it is, so that most runtimes read it."""


def write_onnx(checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress) -> ExportReport:
    """Write the ONNX model; see `formats.Writer`. Raises UserError where the extra `export` is not installed."""
    check_installed("onnx")

    def trace(classifier: ImageClassifier, description: Mapping[str, Any]) -> Program:
        return trace_onnx(classifier, description, {"images": classifier.example()}, _open)

    return write_program(FORMATS["onnx"], trace, checkpoint, output, settings, display)


def check_installed(format: str) -> None:
    """Raises UserError where what writes and runs ONNX is not installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"the format {format} needs {', '.join(missing)}; pip install 'alexnet[export]'")


def trace_onnx(
    classifier: ImageClassifier,
    description: Mapping[str, Any],
    examples: Mapping[str, torch.Tensor],
    open_file: Callable[[Path], Runner],
) -> Program:
    """An ONNX model of what `classifier.forward` does; its norms are replaced by native ones, in place.

    examples: of each argument, by name; of all, the first axis is the batch. open_file: how the file is run.
    """
    import onnxruntime

    notes = use_native_norms(classifier.model)
    batch = torch.export.Dim("batch")
    with _quietly():
        program = torch.onnx.export(
            classifier,
            tuple(examples.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=classifier.output_names,
            dynamic_shapes={name: {0: batch} for name in examples},
            custom_translation_table=translations(),
        )
    assert program is not None
    model = program.model
    name_layers(model)
    model.producer_name, model.producer_version = "alexnet", __version__
    model.doc_string = valid_text(description["summary"])
    model.metadata_props.clear()
    for key, value in description.items():
        model.metadata_props[key] = valid_text(value) if isinstance(value, str) else json_text(value, indent=None)

    def save(file: BinaryIO) -> None:
        file.write(program.model_proto.SerializeToString())

    return Program(
        save,
        open_file,
        f"onnxruntime {onnxruntime.__version__}",
        notes,
        {"opset": OPSET, "operators": dict(sorted(Counter(node.op_type for node in model.graph).items()))},
    )


def _open(path: Path) -> Runner:
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = session.run(None, {"images": images})
        return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}

    return run


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A file ready to run, after ONNX's own checks."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter tells its own developers: optional libraries, deprecations inside torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used", UserWarning)  # in two inputs
            yield
    finally:
        logger.setLevel(level)

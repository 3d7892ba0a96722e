"""An ONNX model: images in, probabilities out, its layers under their own names. Needs the extra `export`."""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

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
from alexnet.training.checkpoint import Checkpoint

OPSET = 18
"""Version of the operators: the oldest that the exporter writes as it is, so that most runtimes read it."""


def write_onnx(checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress) -> ExportReport:
    """Write the ONNX model; see `formats.Writer`. Raises UserError where the extra `export` is not installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"the format onnx needs {', '.join(missing)}; pip install 'alexnet[export]'")
    return write_program(FORMATS["onnx"], _trace, checkpoint, output, settings, display)


def _trace(classifier: ImageClassifier, description: Mapping[str, Any]) -> Program:
    import onnxruntime

    notes = use_native_norms(classifier.model)
    with _quietly():
        program = torch.onnx.export(
            classifier,
            (classifier.example(),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=classifier.output_names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            custom_translation_table=translations(),
        )
    assert program is not None
    model = program.model
    name_layers(model)
    model.producer_name, model.producer_version = "alexnet", __version__
    model.doc_string = description["summary"]
    model.metadata_props.clear()
    for key, value in description.items():
        model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)

    def save(file: BinaryIO) -> None:
        file.write(program.model_proto.SerializeToString())

    return Program(
        save,
        _open,
        f"onnxruntime {onnxruntime.__version__}",
        notes,
        {"opset": OPSET, "operators": dict(sorted(Counter(node.op_type for node in model.graph).items()))},
    )


def _open(path: Path) -> Runner:
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = session.run(None, {"images": images})
        return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}

    return run


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter tells its own developers: optional libraries, deprecations inside torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)

"""A network exported to ONNX and run by ONNX Runtime; needs the extra `export`."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from alexnet.benchmark.job import Job


def onnx_step(network: nn.Module, job: Job, image_size: int) -> Callable[[Tensor], Tensor]:
    """A function from (B, 3, image_size, image_size) float32 images to logits, on the job's threads and device."""
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of libraries that are not needed
    example = torch.randn(job.batch_size, 3, image_size, image_size)
    program = torch.onnx.export(network, (example,), dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads or torch.get_num_threads()
    # Its threads may not spin while the others are measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = "CUDAExecutionProvider" if job.device.startswith("cuda") else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=[provider])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return run

"""The baselines by name: what each is, which of them make sense on a machine, and why the others are left out."""

from __future__ import annotations

import difflib
import os
import shutil
from importlib.util import find_spec

import torch

from alexnet.benchmark import contestants
from alexnet.benchmark.contestants import LEVERS, Contestant, Flags
from alexnet.benchmark.job import Job, LeftOut
from alexnet.errors import UserError
from alexnet.models import get_architecture
from alexnet.models.architecture import minimum_image_size
from alexnet.runtime.device import has_fast_bfloat16

BASELINES = {
    "textbook": "the same network in plain torch: float32, contiguous, torch.optim.SGD, F.local_response_norm",
    "flags": "textbook with autocast bfloat16, channels-last and SGD(fused=True)",
    "flags-float32": "textbook with channels-last and SGD(fused=True)",
    "torchvision": "torchvision's AlexNet with the best flags of the machine",
    "torchvision-compiled": "the same with torch.compile",
    "onnxruntime": "the same network in ONNX Runtime, float32 (inference only)",
}
_INFERENCE_ONLY = {"onnxruntime"}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def choose_baselines(wanted: str | None, job: Job) -> tuple[list[str], list[LeftOut]]:
    """The baselines to run, and those that are left out with the reason.

    wanted: names with commas between them (also of `LEVERS`), "all", "none", or None for the baselines that make sense
    on this machine.
    Raises UserError for a name that is no baseline of the task.
    """
    names = [name for name in BASELINES if job.task == "inference" or name not in _INFERENCE_ONLY]
    if wanted is not None and wanted not in ("all", "none"):
        asked = [name.strip() for name in wanted.split(",") if name.strip()]
        for name in asked:
            _check_name(name, [*names, *LEVERS], job)
        names = list(dict.fromkeys(asked))
    elif wanted == "none":
        names = []
    chosen, left_out = [], []
    for name in names:
        reason = _why_impossible(name, job) or (_why_senseless(name, job) if wanted is None else None)
        if reason is None:
            chosen.append(name)
        else:
            left_out.append(LeftOut(name, reason))
    return chosen, left_out


def _check_name(name: str, known: list[str], job: Job) -> None:
    if name in known:
        return
    if name in _INFERENCE_ONLY:
        raise UserError(f"baseline {name!r} has no training; it is for `alexnet benchmark inference`.")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"there is no baseline {name!r}; {hint}the baselines are {', '.join(known)}, or all, or none.")


def _why_impossible(name: str, job: Job) -> str | None:
    device = torch.device(job.device)
    if name.startswith("torchvision"):
        smallest, size = minimum_image_size(get_architecture("torchvision")), get_architecture(job.model).image_size
        if size < smallest:
            return f"its network needs images of at least {smallest} px, those of {job.model} have {size}"
    if name == "torchvision-compiled":
        if device.type == "cuda" and find_spec("triton") is None:
            return "torch.compile needs triton on this device, which is not installed"
        compiler = os.environ.get("CXX", "").split(" ")[0] or "g++"
        if device.type == "cpu" and not any(map(shutil.which, (compiler, "c++", "clang++", "cl"))):
            return "torch.compile needs a C++ compiler here, and there is none"
    if name == "onnxruntime":
        missing = [package for package in _ONNX_PACKAGES if find_spec(package) is None]
        if missing:
            return f"{', '.join(missing)} not installed; pip install 'alexnet[export]'"
        if device.type != "cpu":
            import onnxruntime

            if device.type != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                return f"this onnxruntime cannot compute on {device.type}"
    return None


def _why_senseless(name: str, job: Job) -> str | None:
    fast = has_fast_bfloat16(torch.device(job.device))
    if name == "flags" and not fast:
        return "autocast bfloat16 is slower than float32 on this machine; flags-float32 is its equal there"
    if name == "flags" and job.precision == "float32":
        return "it computes in bfloat16, and this is a comparison in float32"
    if name == "flags-float32" and fast and job.precision == "bfloat16":
        return "flags, in bfloat16, is the faster one on this machine"
    return None


def build_contestant(name: str, job: Job) -> Contestant:
    """`ours`, or a baseline, ready for its first step."""
    bfloat16 = job.precision == "bfloat16" and has_fast_bfloat16(torch.device(job.device))
    match name:
        case "ours":
            return contestants.ours(job)
        case "textbook":
            return contestants.plain(job, job.model, Flags())
        case "flags":
            return contestants.plain(job, job.model, Flags(autocast=True, channels_last=True, fused=True))
        case "flags-float32":
            return contestants.plain(job, job.model, Flags(channels_last=True, fused=True))
        case "torchvision" | "torchvision-compiled":
            compiled = name == "torchvision-compiled"
            flags = Flags(autocast=bfloat16, channels_last=True, fused=True, compiled=compiled)
            return contestants.plain(job, "torchvision", flags)
        case "onnxruntime":
            return contestants.onnxruntime(job)
        case _ if name in LEVERS:
            return contestants.ours(job, lever=name)
        case _:
            raise ValueError(name)

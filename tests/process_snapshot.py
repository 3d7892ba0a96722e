"""Everything of a process that a library call could leave changed, as values that can be compared."""

from __future__ import annotations

import faulthandler
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageFile

from alexnet.ops import native

BACKENDS: Any = torch.backends
PRECISIONS = {
    "all": BACKENDS,
    "cudnn": BACKENDS.cudnn,
    "mkldnn": BACKENDS.mkldnn,
    "cuda.matmul": BACKENDS.cuda.matmul,
    "cudnn.conv": BACKENDS.cudnn.conv,
    "cudnn.rnn": BACKENDS.cudnn.rnn,
    "mkldnn.matmul": BACKENDS.mkldnn.matmul,
    "mkldnn.conv": BACKENDS.mkldnn.conv,
    "mkldnn.rnn": BACKENDS.mkldnn.rnn,
}
OLD_FUNCTIONS: dict[str, Callable[[], Any]] = {
    "cuda.matmul.allow_tf32": lambda: BACKENDS.cuda.matmul.allow_tf32,
    "cudnn.allow_tf32": lambda: BACKENDS.cudnn.allow_tf32,
    "float32_matmul_precision": torch.get_float32_matmul_precision,
}


def outcome(function: Callable[[], Any]) -> Any:
    """The value, or the error: torch refuses to answer where its old and its new settings disagree."""
    try:
        return function()
    except RuntimeError as error:
        return str(error)


def float32_settings() -> dict[str, Any]:
    """What torch's functions answer now, and would answer if the setting that all others inherit from were changed."""
    before = BACKENDS.fp32_precision
    answers = {}
    for general in (before, "ieee", "tf32", "none"):
        BACKENDS.fp32_precision = general
        for name, holder in PRECISIONS.items():
            answers[f"{name} under {general}"] = holder.fp32_precision
        for name, function in OLD_FUNCTIONS.items():
            answers[f"{name} under {general}"] = outcome(function)
    BACKENDS.fp32_precision = before
    return answers


def process_snapshot() -> dict[str, Any]:
    """Settings, handlers, hooks, generators and limits of this process."""
    umask = os.umask(0)
    os.umask(umask)
    cudnn, matmul = BACKENDS.cudnn, BACKENDS.cuda.matmul
    snapshot = {
        "float32": float32_settings(),
        "cudnn": (cudnn.benchmark, cudnn.deterministic, cudnn.enabled, cudnn.benchmark_limit),
        "reductions": (
            matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction,
        ),
        "attention": (BACKENDS.cuda.flash_sdp_enabled(), BACKENDS.cuda.math_sdp_enabled()),
        "deterministic": (torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "defaults": (torch.get_default_dtype(), torch.get_default_device()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": [(torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in ("cpu", "cuda")],
        "torch printing": dict(vars(torch._tensor_str.PRINT_OPTS)),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(np.random.get_state()),
        "python generator": random.getstate(),
        "numpy": (np.geterr(), np.get_printoptions()),
        "kernels": native.AVAILABLE,
        "environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": (list(warnings.filters), warnings.showwarning),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "interpreter": (sys.getrecursionlimit(), sys.getswitchinterval(), list(sys.path)),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks)),
        "faulthandler": faulthandler.is_enabled(),
        "logging": _loggers(),
        "locale": locale.setlocale(locale.LC_ALL),
        "folder": (os.getcwd(), umask),
        "matplotlib": dict(matplotlib.rcParams),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "start method": torch.multiprocessing.get_start_method(allow_none=True),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "running threads": sorted(thread.name for thread in threading.enumerate()),
    }
    if sys.platform == "linux":
        import resource

        names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
        snapshot["limits"] = {name: resource.getrlimit(getattr(resource, name)) for name in names}
        snapshot["priority"] = (os.nice(0), os.sched_getaffinity(0), signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return snapshot


def _loggers() -> dict[str, Any]:
    """Those that were changed; one that a module has only made is as good as none."""
    loggers = {"root": logging.root, **logging.root.manager.loggerDict}
    states = {
        name: (logger.level, logger.disabled, logger.propagate, list(logger.handlers))
        for name, logger in loggers.items()
        if isinstance(logger, logging.Logger)
    }
    return {name: state for name, state in states.items() if state != (logging.NOTSET, False, True, [])}

"""torchvision's models where they can be had; a test that wants them is skipped elsewhere, saying why."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

_OPERATORS: list[torch.library.Library] = []  # kept alive: a library takes its operators with it


def torchvision_models() -> ModuleType:
    """torchvision.models. Skips the test where it cannot be imported.

    A build for CUDA does not load its own operators on a machine without; its import then fails for want of two
    operators that the models do not use. They are declared here first.
    """
    try:
        return _import()
    except ImportError as error:
        pytest.skip(f"no torchvision here, so nothing is compared with it: {error}")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)
        return _import()


def _import() -> ModuleType:
    import torchvision.models

    return torchvision.models

"""AlexNet as it was really run in 2012, on PyTorch: networks, training, evaluation, prediction.

The names below are imported when they are first used, so that `import alexnet` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alexnet._version import __version__

if TYPE_CHECKING:
    from alexnet.commands.evaluate import evaluate
    from alexnet.commands.export import export
    from alexnet.commands.features import features
    from alexnet.commands.prepare import prepare
    from alexnet.config import Recipe
    from alexnet.config_io import load_recipe
    from alexnet.errors import RunError, UserError
    from alexnet.evaluation.predictor import load_predictor, predict
    from alexnet.hub.model import HubAlexNet, from_pretrained, push_to_hub
    from alexnet.models import AlexNet, to_plain
    from alexnet.training.checkpoint import load_checkpoint, load_model, save_checkpoint
    from alexnet.training.run import train
    from alexnet.weights.importing import create_model, import_weights

_HOMES = {
    "AlexNet": "alexnet.models",
    "HubAlexNet": "alexnet.hub.model",
    "Recipe": "alexnet.config",
    "RunError": "alexnet.errors",
    "UserError": "alexnet.errors",
    "create_model": "alexnet.weights.importing",
    "evaluate": "alexnet.commands.evaluate",
    "export": "alexnet.commands.export",
    "from_pretrained": "alexnet.hub.model",
    "import_weights": "alexnet.weights.importing",
    "features": "alexnet.commands.features",
    "load_checkpoint": "alexnet.training.checkpoint",
    "load_model": "alexnet.training.checkpoint",
    "load_predictor": "alexnet.evaluation.predictor",
    "load_recipe": "alexnet.config_io",
    "predict": "alexnet.evaluation.predictor",
    "prepare": "alexnet.commands.prepare",
    "push_to_hub": "alexnet.hub.model",
    "save_checkpoint": "alexnet.training.checkpoint",
    "to_plain": "alexnet.models",
    "train": "alexnet.training.run",
}

__all__ = [
    "AlexNet",
    "HubAlexNet",
    "Recipe",
    "RunError",
    "UserError",
    "__version__",
    "create_model",
    "evaluate",
    "export",
    "features",
    "from_pretrained",
    "import_weights",
    "load_checkpoint",
    "load_model",
    "load_predictor",
    "load_recipe",
    "predict",
    "prepare",
    "push_to_hub",
    "save_checkpoint",
    "to_plain",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What every layer makes of an image."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet


def layer_activations(model: AlexNet, inputs: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The outputs of the named layers (None: of all) in evaluation, by name in the network's order.

    inputs: (N, 3, h, w) as `center_crop` makes them. Maps are (N, C, H, W), features (N, D), float32. Raises UserError
    for a name that is no layer.
    """
    with evaluation_mode([model]), torch.inference_mode():
        return {name: outputs.float() for name, outputs in model.activations(inputs, layers).items()}

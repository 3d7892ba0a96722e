"""Initial weights: the published schemes as tables, and one function that applies them."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import torch
from torch import nn

from alexnet.errors import UserError
from alexnet.models.layers import GroupedLinear, Local

_Weighted = nn.Conv2d | nn.Linear | GroupedLinear | Local


class Initial(NamedTuple):
    """How a layer begins: weights N(0, std), all biases equal."""

    std: float
    bias: float


_PAPER = {
    # Paper 5: N(0, 0.01), biases of 1 in conv2, conv4, conv5 and the fully-connected hidden layers.
    "conv1": Initial(0.01, 0.0),
    "conv2": Initial(0.01, 1.0),
    "conv3": Initial(0.01, 0.0),
    "conv4": Initial(0.01, 1.0),
    "conv5": Initial(0.01, 1.0),
    "conv6": Initial(0.01, 1.0),
    "fc6": Initial(0.01, 1.0),
    "fc7": Initial(0.01, 1.0),
    "fc8": Initial(0.01, 0.0),
}
_AS_RUN = {
    **_PAPER,
    # S layers-145.cfg (conv6: layers-146-2012-2011.cfg): initW=0.03, which is He's value for these layers.
    "conv3": Initial(0.03, 0.0),
    "conv4": Initial(0.03, 1.0),
    "conv5": Initial(0.03, 1.0),
    "conv6": Initial(0.03, 1.0),
}
_CAFFENET = {**_PAPER, "fc6": Initial(0.005, 1.0), "fc7": Initial(0.005, 1.0)}
_CIFAR_CONVOLUTIONS = {
    "conv1": Initial(1e-4, 0.0),
    "conv2": Initial(0.01, 0.0),
    "conv3": Initial(0.01, 0.0),
}

SCHEMES: dict[str, dict[str, Initial] | None] = {
    "as_run": _AS_RUN,
    "paper": _PAPER,
    # Caffe's readme: biases of 1 gave a flat loss, so bvlc_alexnet has 0.1.
    "caffe": {name: Initial(std, 0.1 if bias else 0.0) for name, (std, bias) in _CAFFENET.items()},
    "torch_default": None,
    "caffenet": _CAFFENET,
    # No variant's own any more: checkpoints of `bn` from before 2026-12 name it.
    "bn": {name: Initial(0.01, 0.0) for name in _PAPER},
    "cifar_quick": {**_CIFAR_CONVOLUTIONS, "fc64": Initial(0.1, 0.0), "fc10": Initial(0.1, 0.0)},
    "cifar": {**_CIFAR_CONVOLUTIONS, "fc10": Initial(0.01, 0.0)},
    "cifar_local": {
        **_CIFAR_CONVOLUTIONS,
        "local3": Initial(0.04, 0.0),
        "local4": Initial(0.04, 0.0),
        "fc10": Initial(0.01, 0.0),
    },
}
"""Scheme -> layer -> how it begins. torch_default has no table: uniform within 1/sqrt(fan-in), as torch does."""


def initialize(model: nn.Module, scheme: str, seed: int) -> None:
    """Draw all weights of a network by a scheme, in place; batch norms begin as the identity.

    Each layer draws from a generator of its own, seeded by (seed, the layer's name): a layer that two variants share
    begins alike in both. Raises UserError for an unknown scheme, or one that says nothing about a layer.
    """
    if scheme not in SCHEMES:
        raise UserError(f"There is no initialization {scheme!r}; there are {', '.join(SCHEMES)}.")
    table = SCHEMES[scheme]
    for name, layer in model.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        if not isinstance(layer, _Weighted):
            continue
        generator = torch.Generator().manual_seed(_layer_seed(seed, name))
        if table is None:
            _draw_torch_default(layer, generator)
        elif name in table:
            _draw_normal(layer, table[name], generator)
        else:
            raise UserError(
                f"The initialization {scheme!r} says nothing about the layer {name!r}; torch_default fits every model."
            )


def _layer_seed(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") & (2**63 - 1)


@torch.no_grad()
def _draw_normal(layer: _Weighted, initial: Initial, generator: torch.Generator) -> None:
    # Drawn on the CPU, so that every device begins with the same weights.
    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator).mul_(initial.std))
    if layer.bias is not None:
        layer.bias.fill_(initial.bias)


@torch.no_grad()
def _draw_torch_default(layer: _Weighted, generator: torch.Generator) -> None:
    fan_in = layer.weight.shape[-1] if isinstance(layer, Local) else layer.weight[0].numel()
    bound = 1 / math.sqrt(fan_in)
    layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator).mul_(2 * bound).sub_(bound))
    if layer.bias is not None:
        layer.bias.copy_(torch.rand(layer.bias.shape, generator=generator).mul_(2 * bound).sub_(bound))

"""Response normalisation as ONNX has it: one LRN node for each norm across maps.

ONNX's LRN is x / (bias + alpha / size * sum of squares) ** beta over the maps from (size - 1) // 2 before to size // 2
after (onnx/defs/nn: LRN). That alpha is divided by the window whatever the convention of the record, so the record's is
put into those terms; for windows of an even number of maps the two count from different sides. Towers become images
of the batch, so that no window reaches across them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.models import AlexNet
from alexnet.models.architecture import ResponseNorm, SpatialNorm
from alexnet.ops.response_norm import norm_across_maps, response_norm_reference

# An operator of its own, so that the exporter finds it as one piece; it is nothing but a name for that.
_LIBRARY = torch.library.Library("alexnet", "FRAGMENT")
_LIBRARY.define("lrn(Tensor maps, int size, float alpha, float beta, float k) -> Tensor")


@torch.library.impl(_LIBRARY, "lrn", "CompositeExplicitAutograd")
def _(maps: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return response_norm_reference(maps, size, alpha, beta, k, alpha_convention="mean")


@torch.library.register_fake("alexnet::lrn", lib=_LIBRARY)
def _(maps: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return torch.empty_like(maps)


class NativeNorm(nn.Module):
    """A norm across maps that is exported as one LRN node."""

    def __init__(self, record: ResponseNorm) -> None:
        super().__init__()
        self.record = record
        self.norm = norm_across_maps(
            record.size, record.alpha, record.beta, record.k, alpha_convention=record.alpha_convention
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        norm, towers = self.norm, self.record.towers
        apart = maps.unflatten(1, (towers, -1)).flatten(0, 1) if towers > 1 else maps
        normed = torch.ops.alexnet.lrn(apart, norm.size, norm.scale * norm.size, norm.beta, norm.k)
        return normed.unflatten(0, (-1, towers)).flatten(1, 2) if towers > 1 else normed


def use_native_norms(model: AlexNet) -> list[str]:
    """Replace the norms that an LRN node expresses, in place; returns sentences about how each norm is written."""
    native, plain = [], []
    for layer in model.architecture.layers:
        if isinstance(layer, ResponseNorm) and layer.size % 2 == 1:
            setattr(model, layer.name, NativeNorm(layer))
            native.append(layer.name)
        elif isinstance(layer, ResponseNorm | SpatialNorm):
            plain.append((layer.name, "lies within a map" if isinstance(layer, SpatialNorm) else "is of even size"))
    notes = [f"{', '.join(native)}: one LRN node each."] if native else []
    return notes + [
        f"{name}: in plain operations, since its window {why}, which no LRN node has." for name, why in plain
    ]


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch.onnx.export needs to know of the operator (its custom_translation_table)."""
    from onnxscript import opset18

    def lrn(maps: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        return opset18.LRN(maps, alpha=alpha, beta=beta, bias=k, size=size)

    return {torch.ops.alexnet.lrn.default: lrn}

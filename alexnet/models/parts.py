"""A network cut into parts, one for each of several processes; every part is a record of layers, like any network.

Paper 3.2 and Figure 2: each of two GPUs holds half of the kernels, and they talk in certain layers only. A part has its
share of the outputs of every layer that is cut, and `Exchange` records stand where it needs what the others have. Its
weights are cut from the whole network's along the outputs, so that whole and parts can be made of each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from torch import Tensor

from alexnet.errors import UserError
from alexnet.models.architecture import (
    Architecture,
    BatchNorm,
    Convolution,
    Dropout,
    Exchange,
    Layer,
    LayerShapes,
    Linear,
    Local,
    ResponseNorm,
    layer_shapes,
    share_of_rows,
)

Cut = Literal["towers", "classifier"]
"""towers: every layer is cut, and every part sees all images (paper 3.2). classifier: the fully-connected layers alone,
with 96 % of the weights, are cut; convolutions are whole, and each part runs them on its own images (Krizhevsky, "One
weird trick for parallelizing convolutional neural networks", 2014)."""


class Part(NamedTuple):
    """One of the parts of a network."""

    architecture: Architecture
    cut_layers: frozenset[str]
    """Those of whose parameters, buffers or dropout masks this part has its share."""

    def cuts(self, name: str) -> bool:
        """Whether this part has its share of the parameter or buffer of that name."""
        return name.rpartition(".")[0] in self.cut_layers


def part_of(architecture: Architecture, num_classes: int, image_size: int, cut: Cut, parts: int, rank: int) -> Part:
    """The part of the process `rank` of `parts`. Raises UserError for a network that cannot be cut so."""
    layers: list[Layer] = []
    cut_layers = set()
    held: Literal["all", "maps", "images"] = "all" if cut == "towers" else "images"
    for row in layer_shapes(architecture, num_classes, image_size):
        layer = row.layer
        if isinstance(layer, Linear) or (cut == "towers" and isinstance(layer, Convolution)):
            if layer.groups == 1 and held != "all":
                layers.append(Exchange(f"to_{layer.name}", held, "all", row.inputs[0]))
            elif layer.groups not in (1, parts):
                raise UserError(
                    f"{architecture.name} cannot be cut in {parts}: {layer.name} has {layer.groups} groups."
                )
            layers.append(_share_of(row, parts, rank))
            cut_layers.add(layer.name)
            held = "maps"
        elif held == "maps":
            layers.append(_within_share(architecture, layer, parts))
            if isinstance(layer, BatchNorm | Dropout):
                cut_layers.add(layer.name)
        else:
            layers.append(layer)
    if held != "maps":
        raise UserError(f"{architecture.name} has no fully-connected layer to cut.")
    layers.append(Exchange("to_loss", "maps", "images", num_classes))
    return Part(replace(architecture, layers=tuple(layers)), frozenset(cut_layers))


def _share_of(row: LayerShapes, parts: int, rank: int) -> Layer:
    """The layer with this part's share of the outputs."""
    layer, total = row.layer, row.outputs[0]
    last = share_of_rows(total, parts, parts - 1)  # shares are rounded up, so that the last may be left without any
    if last.start == last.stop or (total % parts and not isinstance(layer, Linear)):
        raise UserError(f"{layer.name} has {total} outputs, which cannot be shared out among {parts} processes.")
    share = len(range(total)[share_of_rows(total, parts, rank)])
    if isinstance(layer, Convolution):
        return replace(layer, channels=share, groups=1)
    assert isinstance(layer, Linear)
    return replace(layer, features=share, groups=1)


def _within_share(architecture: Architecture, layer: Layer, parts: int) -> Layer:
    """A layer that works on this part's maps alone."""
    if isinstance(layer, ResponseNorm):
        if layer.towers != parts:
            raise UserError(
                f"{architecture.name} cannot be cut in {parts}: {layer.name} normalises over {layer.towers} tower(s)."
            )
        return replace(layer, towers=1)
    if isinstance(layer, Local):
        raise UserError(f"{architecture.name} cannot be cut: {layer.name} has weights at every position.")
    return layer


def own_rows(whole: Tensor, parts: int, rank: int) -> Tensor:
    """A part's share of a tensor's first dimension; a number is everybody's."""
    return whole[share_of_rows(len(whole), parts, rank)] if whole.ndim else whole

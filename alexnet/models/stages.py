"""How the layers of a record are run: neighbours that one operator can do together form a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alexnet.models.architecture import Layer, MaxPool, ReLU, ResponseNorm, Shape, SpatialNorm
from alexnet.ops.block import Block, Pool
from alexnet.ops.chunked_norm import Norm
from alexnet.ops.response_norm import norm_across_maps, norm_within_maps


class Stage(NamedTuple):
    """Layers that run one after the other."""

    names: tuple[str, ...]
    block: Block | None
    """What all of them do together; None for a single layer that runs as its module."""


def plan_stages(layers: Sequence[tuple[Layer, Shape]]) -> list[Stage]:
    """The stages of (layer, shape of its input) pairs, in order: as many layers to a block as it can hold."""
    stages: list[Stage] = []
    start = 0
    while start < len(layers):
        count, block = _longest_block(layers[start:])
        stages.append(Stage(tuple(layer.name for layer, _ in layers[start : start + count]), block))
        start += count
    return stages


def _longest_block(layers: Sequence[tuple[Layer, Shape]]) -> tuple[int, Block | None]:
    """How many of the first layers make a block, and which; (1, None) when the first makes none."""
    block, count = Block(), 0
    for layer, shape in layers:
        extended = _extended(block, layer) if len(shape) == 3 else None
        if extended is None:
            break
        block, count = extended, count + 1
    # A lone ReLU is one operation of torch already.
    return (count, block) if block._replace(relu_first=False) != Block() else (1, None)


def _extended(block: Block, layer: Layer) -> Block | None:
    """The block with the layer after it; None where the block has no such place left."""
    match layer:
        case ReLU() if block == Block():
            return block._replace(relu_first=True)
        case ReLU() if block.pool is not None and not block.relu_last:
            return block._replace(relu_last=True)
        case ResponseNorm() if block.norm is None and block.spatial is None and block.pool is None:
            return block._replace(norm=_norm_of(layer))
        case SpatialNorm() if block.spatial is None and block.pool is None:
            return block._replace(spatial=_norm_of(layer))
        case MaxPool() if block.pool is None:
            return block._replace(pool=Pool(layer.size, layer.stride, layer.ceil_mode))
        case _:
            return None


def _norm_of(layer: ResponseNorm | SpatialNorm) -> Norm:
    numbers = (layer.size, layer.alpha, layer.beta, layer.k)
    if isinstance(layer, ResponseNorm):
        return norm_across_maps(*numbers, alpha_convention=layer.alpha_convention, towers=layer.towers)
    return norm_within_maps(*numbers, alpha_convention=layer.alpha_convention)

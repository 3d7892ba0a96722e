"""Which neighboring layers of a network run as one fused operator, read from the modules as they are now.

Nothing is planned in advance: a layer may have been replaced, its settings changed, or a hook registered since the
last call. A layer is fused only if it is exactly one of ours or torch's own, unpatched and unhooked; its settings are
read when it runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from alexnet.models.layer_calls import is_untouched, is_watched
from alexnet.models.layers import ResponseNorm, SpatialNorm
from alexnet.ops.block import Block, Pool

_FUSIBLE = {kind: kind.forward for kind in (nn.ReLU, nn.MaxPool2d, ResponseNorm, SpatialNorm)}


class Stage(NamedTuple):
    """Layers that run one after the other."""

    names: tuple[str, ...]
    block: Block | None
    """What all of them do together; None for a single layer that runs as its module."""


def plan_stages(layers: Iterable[tuple[str, nn.Module]]) -> list[Stage]:
    """Group (name, layer) pairs, in order, into stages: as many layers to a block as it can hold."""
    stages: list[Stage] = []
    names: list[str] = []
    block = Block()
    everything_is_watched = is_watched()

    def close() -> None:
        nonlocal names, block
        if names:
            # A ReLU alone is one operation of torch already.
            is_relu = block == Block(relu_first=True)
            stages.append(Stage(tuple(names), None if is_relu else block))
        names, block = [], Block()

    for name, layer in layers:
        fusible = not everything_is_watched and is_untouched(layer, _FUSIBLE)
        extended = _extended(block, layer) if fusible else None
        if fusible and extended is None and names:
            close()
            extended = _extended(block, layer)
        if extended is None:
            close()
            stages.append(Stage((name,), None))
        else:
            names.append(name)
            block = extended
    close()
    return stages


def _extended(block: Block, layer: nn.Module) -> Block | None:
    """The block with the layer after it; None where the block has no such place left, or the layer has other settings
    than a block can have."""
    match layer:
        case nn.ReLU() if block == Block():
            return block._replace(relu_first=True)
        case nn.ReLU() if block.pool is not None and not block.relu_last:
            return block._replace(relu_last=True)
        case ResponseNorm() if block.norm is None and block.spatial is None and block.pool is None:
            return block._replace(norm=layer.norm())
        case SpatialNorm() if block.spatial is None and block.pool is None:
            return block._replace(spatial=layer.norm())
        case nn.MaxPool2d() if block.pool is None:
            pool = _pool_of(layer)
            return None if pool is None else block._replace(pool=pool)
        case _:
            return None


def _pool_of(layer: nn.MaxPool2d) -> Pool | None:
    size, stride = _side(layer.kernel_size), _side(layer.stride)
    is_plain = _side(layer.padding) == 0 and _side(layer.dilation) == 1 and not layer.return_indices
    return Pool(size, stride, layer.ceil_mode) if is_plain and size and stride else None


def _side(value: int | tuple[int, ...] | None) -> int | None:
    """The side of a square setting of torch; None for one that is not square."""
    if value is None or isinstance(value, int):
        return value
    return value[0] if len(set(value)) == 1 else None

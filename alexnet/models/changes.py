"""Changes to a network's record: what the paper's ablations replace or leave out (paper 3.1, 3.3, 3.4, 4.2 and 7)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from alexnet.errors import UserError
from alexnet.models.architecture import (
    AdaptiveAveragePool,
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dropout,
    Layer,
    Linear,
    Local,
    MaxPool,
    ReLU,
    SiLU,
    Tanh,
    layer_shapes,
    minimum_image_size,
)

Activation = Literal["relu", "tanh", "silu"]
Pooling = Literal["overlapping", "non_overlapping"]

ACTIVATIONS: dict[str, type[ReLU] | type[Tanh] | type[SiLU]] = {"relu": ReLU, "tanh": Tanh, "silu": SiLU}
_WEIGHTED = Convolution | Local | Linear


def change_architecture(
    architecture: Architecture,
    *,
    initialization: str | None = None,
    dropout: float | None = None,
    input_scale: Literal["pixels", "unit"] | None = None,
    activation: str | None = None,
    pooling: str = "overlapping",
    without: Sequence[str] = (),
    image_size: int | None = None,
) -> Architecture:
    """Return the record with what a recipe changes; None, "overlapping" and () change nothing.

    Args:
        image_size: Side of the images the network is for, in pixels; None takes the record's own. It decides whether
            pools can be exchanged, and is not written into the record. See `build_network` for the others.

    Returns:
        The record under its own name, with a summary that lists the changes.

    Raises:
        UserError: A change is impossible for this network or image size.
    """
    changed, changes = architecture, []
    if activation is not None:
        changed = with_activation(changed, activation)
        changes.append(f"activation {activation}")
    if dropout is not None:
        changed = with_dropout(changed, dropout)
        changes.append(f"dropout {dropout:g}")
    if without:
        changed = without_layers(changed, without)
        changes.append(f"without {', '.join(without)}")
    # After layers are left out: the network without them has to keep the size of its maps.
    if pooling == "non_overlapping":
        changed = with_separate_windows(changed, architecture.image_size if image_size is None else image_size)
        changes.append("pools that do not overlap")
    elif pooling != "overlapping":
        raise UserError(f"pooling = {pooling!r}; it is overlapping or non_overlapping.")
    if initialization is not None:
        changed = replace(changed, initialization=initialization)
    if input_scale is not None and input_scale != architecture.input_scale:
        changed = replace(changed, input_scale=input_scale)
        changes.append(f"inputs {input_scale}")
    if changed.layers != architecture.layers or changed.input_scale != architecture.input_scale:
        changed = replace(changed, summary=f"{architecture.summary} Changed: {'; '.join(changes)}.")
    return changed


def with_activation(architecture: Architecture, activation: str) -> Architecture:
    """The record with every activation replaced (paper 3.1). The layers keep their names: relu1 is a place.

    Max pooling commutes with tanh as it does with ReLU, since both are monotone; with SiLU it does not.
    """
    if activation not in ACTIVATIONS:
        raise UserError(f"activation = {activation!r}; it is one of {', '.join(ACTIVATIONS)}.")
    kind = ACTIVATIONS[activation]
    layers = (kind(layer.name) if isinstance(layer, ReLU | Tanh | SiLU) else layer for layer in architecture.layers)
    return replace(architecture, layers=tuple(layers))


def with_dropout(architecture: Architecture, rate: float) -> Architecture:
    """The record with one probability of dropping a unit in all dropout layers (paper 4.2); 0 drops nothing."""
    if not 0 <= rate < 1:
        raise UserError(f"dropout = {rate}; the probability of dropping a unit is at least 0 and less than 1.")
    layers = (replace(layer, rate=rate) if isinstance(layer, Dropout) else layer for layer in architecture.layers)
    return replace(architecture, layers=tuple(layers))


def with_separate_windows(architecture: Architecture, image_size: int) -> Architecture:
    """Return the record with pools of 2 x 2 windows that lie side by side (paper 3.4: z = s = 2).

    The last maps keep their size, so that the weights keep their number. Where pools alone do not give that at the
    record's own image size, conv2 and conv5 lose a pixel of padding, as in the 2012 experiment (S layers-147.cfg:
    55 -> 28 -> 26 -> 13 -> 11 -> 6). These paddings are used at every image size.

    Args:
        architecture: The network with its own pools.
        image_size: Side of the images in pixels.

    Returns:
        The record with other pools, and where necessary other paddings.

    Raises:
        UserError: The last maps would have another size at `image_size`, or there would be none with overlap either.
    """
    pools = (
        replace(layer, size=2, stride=2) if isinstance(layer, MaxPool | AveragePool) else layer
        for layer in architecture.layers
    )
    separate = replace(architecture, layers=tuple(pools))
    if not _same_last_maps(architecture, separate, architecture.image_size):
        trimmed = (
            replace(layer, padding=max(layer.padding - 1, 0))
            if isinstance(layer, Convolution) and layer.name in ("conv2", "conv5")
            else layer
            for layer in separate.layers
        )
        separate = replace(separate, layers=tuple(trimmed))
    layer_shapes(architecture, 1, image_size)  # raises where images are too small for the network's own pools
    if not _same_last_maps(architecture, separate, image_size):
        sizes = _nearest_sizes(architecture, separate, image_size)
        remedy = f"image_size = {' or '.join(map(str, sizes))}" if sizes else "pooling = 'overlapping'"
        raise UserError(
            f"pooling = 'non_overlapping' would change the size of {architecture.name}'s last maps at image_size = "
            f"{image_size}, from {_side_of_last_maps(architecture, image_size)} to "
            f"{_side_of_last_maps(separate, image_size)} px. Use {remedy}."
        )
    return separate


def _same_last_maps(first: Architecture, second: Architecture, image_size: int) -> bool:
    return _side_of_last_maps(first, image_size) == _side_of_last_maps(second, image_size) > 0


def _side_of_last_maps(architecture: Architecture, image_size: int) -> int:
    """Side of the maps before the first fully-connected layer; 0 where images are too small.

    An adaptive pool would give maps of one size whatever comes before it, so maps end there.
    """
    if image_size < minimum_image_size(architecture):
        return 0
    rows = layer_shapes(architecture, 1, image_size)
    ends = (row.inputs[1] for row in rows if isinstance(row.layer, Linear | AdaptiveAveragePool))
    return next(ends, rows[-1].outputs[-1])


def _nearest_sizes(first: Architecture, second: Architecture, image_size: int) -> list[int]:
    """The nearest image sizes, below and above, at which both networks have last maps of the same size."""
    # Images larger by the product of all strides give last maps larger by one pixel in both: there the pattern repeats.
    period = math.prod(getattr(layer, "stride", 1) for layer in first.layers)
    both = (range(image_size - 1, max(image_size - period, 0) - 1, -1), range(image_size + 1, image_size + period + 1))
    found = (next((size for size in sizes if _same_last_maps(first, second, size)), None) for sizes in both)
    return [size for size in found if size is not None]


def without_layers(architecture: Architecture, names: Sequence[str]) -> Architecture:
    """The record without some layers. With a layer of weights go its activation, batch norm and dropout (paper 7).

    Whether the layers after it fit what they are given now is seen when shapes are computed (`layer_shapes`).
    """
    known = [layer.name for layer in architecture.layers]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"without = {name!r}: {architecture.name} has no such layer; {hint}Its layers are {', '.join(known)}."
            )
    gone = set(names)
    for position, layer in enumerate(architecture.layers):
        if layer.name in names and isinstance(layer, _WEIGHTED):
            gone |= _belongings(layer, architecture.layers[position + 1 :])
    layers = tuple(layer for layer in architecture.layers if layer.name not in gone)
    if not any(isinstance(layer, Linear) and layer.features is None for layer in layers):
        last = next(layer.name for layer in architecture.layers if isinstance(layer, Linear) and layer.features is None)
        raise UserError(f"without = {last!r}: its outputs are the classes, so it has to stay.")
    return replace(architecture, layers=layers)


def changed_layers(layers: tuple[Layer, ...], **changes: Layer | tuple[Layer, ...] | None) -> tuple[Layer, ...]:
    """The layers with those of the given names replaced, by one or several; None takes a layer out."""
    unknown = set(changes) - {layer.name for layer in layers}
    assert not unknown, unknown
    result: list[Layer] = []
    for layer in layers:
        change = changes.get(layer.name, layer)
        if isinstance(change, tuple):
            result += change
        elif change is not None:
            result.append(change)
    return tuple(result)


def _belongings(layer: Layer, following: Sequence[Layer]) -> set[str]:
    """Names of what has no purpose without a layer of weights, among the layers that follow it."""
    kinds = ReLU | Tanh | SiLU | BatchNorm
    names = set()
    for item in following:
        if isinstance(item, _WEIGHTED):
            break
        # A dropout after maps was put there for the fully-connected layer that follows (torchvision's drop5).
        if isinstance(item, kinds) or (isinstance(item, Dropout) and isinstance(layer, Linear)):
            names.add(item.name)
    return names

"""Which network some weights belong to: their names and shapes, compared with those of the variants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES, AlexNet, Architecture, compare, get_architecture, minimum_image_size
from alexnet.models.architecture import Linear, layer_shapes
from alexnet.training.checkpoint import Checkpoint
from alexnet.weights.found import Found

_SHOWN = 4
_LARGEST_IMAGE = 1000
_MOST_CLASSES = 1_000_000

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Network:
    """The network that weights belong to."""

    architecture: Architecture
    num_classes: int
    image_size: int


def choose_network(found: Found, name: str, variant: str | None, image_size: int | None) -> Network:
    """The network that the weights of the file `name` are of.

    variant, image_size: what the person says, None: nothing. Raises UserError where the weights fit none, where they
    fit several, and where the person says something else than the file.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in found.tensors.items()}
    candidates = _candidates(found, name, variant)
    size = image_size or found.image_size
    results = [(candidate, _misfits(candidate, shapes, size or candidate.image_size)) for candidate in candidates]
    fitting = [candidate for candidate, misfits in results if not misfits]
    if len(fitting) == 1:
        return Network(fitting[0], _num_classes(fitting[0], shapes), size or fitting[0].image_size)
    if not fitting:
        nearest, misfits = min(results, key=lambda result: len(result[1]))
        raise UserError(_no_fit(name, nearest, misfits, shapes, size, only=len(candidates) == 1))
    names = [candidate.name for candidate in fitting]
    raise UserError(
        f"The weights of {name} fit {', '.join(names[:-1])} and {names[-1]}, which differ in what is between the "
        f"layers with weights ({_differences(fitting)}). The file does not tell which it is; say so with --variant, as "
        f"in --variant {names[0]}."
    )


def check_fit(checkpoint: Checkpoint, name: str) -> None:
    """Raises UserError where the weights of a file that describes itself are not those of its network."""
    shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.model_state.items()}
    misfits = _misfits(checkpoint.architecture, shapes, checkpoint.image_size)
    if not misfits and _num_classes(checkpoint.architecture, shapes) != len(checkpoint.classes):
        misfits = [f"it names {len(checkpoint.classes):,} classes"]
    if misfits:
        raise UserError(f"{name} describes another network than its weights are of: {misfits[0]}.")


def _candidates(found: Found, name: str, variant: str | None) -> list[Architecture]:
    described = found.architecture
    if described is not None:
        if variant is not None and get_architecture(variant).layers != described.layers:
            raise UserError(
                f"{name} describes its network itself, and it is no {variant}: {described.name}. {described.summary} "
                "Leave out --variant."
            )
        return [described]
    if variant is not None:
        if found.variants and variant not in found.variants:
            raise UserError(
                f"{name} is {found.form}, which can be {' or '.join(found.variants)}, and not {variant}; leave out "
                "--variant, or name one of these."
            )
        return [get_architecture(variant)]
    return [get_architecture(known) for known in found.variants or ARCHITECTURES]


def _misfits(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], image_size: int) -> list[str]:
    """What is wrong with the weights for a network, one item a tensor; nothing where they fit."""
    if image_size > _LARGEST_IMAGE:
        return [f"images of {image_size:,} px are larger than {_LARGEST_IMAGE:,}"] * (len(shapes) + 1)
    try:
        expected = expected_shapes(architecture, _num_classes(architecture, shapes), image_size)
    except UserError as error:
        return [str(error)] * (len(shapes) + 1)
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:  # a record from a file can hold anything
        return [f"its layers cannot be ({error})"] * (len(shapes) + 1)
    missing = [f"{key} is missing" for key in expected if key not in shapes]
    surplus = [f"{key} has no place" for key in shapes if key not in expected]
    other = [
        f"{key} is {_text(shapes[key])} instead of {_text(shape)}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    return other + missing + surplus


def _num_classes(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Outputs of the last layer; 1 where its weights are missing or are none."""
    last = next(layer.name for layer in reversed(architecture.layers) if isinstance(layer, Linear))
    shape = shapes.get(f"{last}.weight", ())
    return shape[0] if len(shape) == 2 and 0 < shape[0] <= _MOST_CLASSES else 1


@lru_cache(maxsize=64)
def expected_shapes(architecture: Architecture, num_classes: int, image_size: int) -> Shapes:
    """The shapes of a network's weights, by name, in order. Raises UserError for a size it cannot be built for."""
    with torch.device("meta"):
        state = AlexNet(architecture, num_classes, image_size).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def _no_fit(
    name: str, nearest: Architecture, misfits: list[str], shapes: Shapes, image_size: int | None, *, only: bool
) -> str:
    known = image_size or nearest.image_size
    sizes = _fitting_sizes(nearest, shapes, known)
    if sizes:
        span = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
        return (
            f"The weights of {name} are those of {nearest.name} for images of {span} px, not of {known} px: give the "
            "size that the network was trained with by --image-size."
        )
    shown = "; ".join(misfits[:_SHOWN])
    more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
    which = f"do not fit {nearest.name}" if only else f"fit no variant. The nearest is {nearest.name}, for which"
    return f"The weights of {name} {which}: {shown}{more}. `alexnet info {nearest.name}` shows its layers."


def _fitting_sizes(architecture: Architecture, shapes: Shapes, known: int) -> list[int]:
    """The sizes of images for which the weights would fit, where it is only the known size that does not."""
    first = next((layer.name for layer in architecture.layers if isinstance(layer, Linear)), "")
    weight = shapes.get(f"{first}.weight", ())

    def fits(size: int) -> bool:
        rows = layer_shapes(architecture, 1, size)
        return weight[1:] == (next(math.prod(row.inputs) for row in rows if row.layer.name == first),)

    try:
        smallest = minimum_image_size(architecture)
        sizes = [size for size in range(smallest, _LARGEST_IMAGE + 1) if fits(size)]
    except UserError:  # groups that do not divide what they are given, at any size
        return []
    return sizes if known not in sizes and sizes and not _misfits(architecture, shapes, sizes[0]) else []


def _differences(fitting: Iterable[Architecture]) -> str:
    """The layers in which networks differ, in short."""
    first, *others = fitting
    layers = {row.layer for other in others for row in compare(first, other) if not row.field.startswith("initial_")}
    order = ["input", *(layer.name for record in (first, *others) for layer in record.layers)]
    return ", ".join(dict.fromkeys(layer for layer in order if layer in layers))


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def checked_tensor(name: str, key: str, tensor: Tensor) -> Tensor:
    """The tensor as dense float32 of its own, contiguous.

    Raises UserError for one that is not dense numbers, and for one that repeats the few that the file has.
    """
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_meta:
        kind = tensor.device if tensor.is_meta else tensor.dtype if tensor.is_complex() else tensor.layout
        raise UserError(f"{key} of {name} is {str(kind).removeprefix('torch.')}; only dense real numbers are read.")
    try:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{key} of {name} repeats its numbers; the file does not hold {tensor.numel():,} of them.")
        return tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    except (RuntimeError, NotImplementedError):  # torch's, for quantised numbers
        raise UserError(f"{key} of {name} is {tensor.dtype}; only dense real numbers are read.") from None

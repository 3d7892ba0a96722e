"""`alexnet visualize`: which drawing is asked for, with what, and where it goes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from alexnet.commands.output import network_facts, print_json
from alexnet.errors import UserError
from alexnet.evaluation.subjects import describe
from alexnet.models import AlexNet
from alexnet.reporting.pictures import check_picture_path, save_picture
from alexnet.reporting.progress import Progress
from alexnet.runtime.device import choose_device
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import Checkpoint, build_model, load_checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options:
    """What is asked for on the command line; None, False or empty where nothing was."""

    layer: tuple[str, ...] = ()
    class_: tuple[str, ...] = ()
    top: int | None = None
    maps: int | None = None
    samples: int | None = None
    patch: int | None = None
    stride: int | None = None
    side: int | None = None
    data: str | None = None
    split: str | None = None
    unit: tuple[int, ...] = ()
    count: int | None = None
    seed: int | None = None
    thumbnails: bool = False
    batch_size: int | None = None

    def given(self) -> list[str]:
        """The names, as on the command line, of the options that were given."""
        names = [field.name for field in fields(self) if getattr(self, field.name) not in (None, False, ())]
        return [f"--{name.rstrip('_').replace('_', '-')}" for name in names]

    def one_layer(self) -> str | None:
        """The layer, where no more than one makes sense."""
        if len(self.layer) > 1:
            raise UserError("give one --layer; only activations shows several")
        return self.layer[0] if self.layer else None


@dataclass(frozen=True)
class Task:
    """A network, and what is to be drawn of it."""

    checkpoint: Checkpoint
    images: Sequence[str]
    options: Options
    device: torch.device
    display: Progress

    @cached_property
    def model(self) -> AlexNet:
        """The network on the device."""
        return build_model(self.checkpoint).to(self.device)

    @property
    def network(self) -> str:
        """In a few words."""
        return describe(self.checkpoint)

    def name_of(self, class_index: int) -> str:
        """What a person calls a class."""
        return self.checkpoint.class_names[class_index]


class Drawing(NamedTuple):
    """A picture, and what is in it as plain types for JSON."""

    figure: Figure
    record: dict[str, Any]


class Kind(NamedTuple):
    """A thing that can be drawn."""

    draw: Callable[[Task], Drawing]
    options: frozenset[str]
    min_images: int
    max_images: int


def _kinds() -> dict[str, Kind]:
    from alexnet.commands import visualize_data as of_data
    from alexnet.commands import visualize_images as of_images

    def kind(draw: Callable[[Task], Drawing], options: str, images: tuple[int, int] = (0, 0)) -> Kind:
        return Kind(draw, frozenset(f"--{name}" for name in options.split()), *images)

    several = (1, of_images.MAX_IMAGES)
    return {
        "kernels": kind(of_data.draw_kernels, ""),
        "activations": kind(of_images.draw_activations, "layer maps top", (1, 1)),
        "gradcam": kind(of_images.draw_grad_cam, "layer class top", several),
        "gradients": kind(of_images.draw_gradients, "class top samples seed", several),
        "occlusion": kind(of_images.draw_occlusion, "class top patch stride batch-size", several),
        "heatmap": kind(of_images.draw_heat_map, "class top side", several),
        "units": kind(of_data.draw_units, "data split layer unit count batch-size"),
        "tsne": kind(of_data.draw_tsne, "data split layer count seed thumbnails batch-size"),
    }


def visualize_command(
    checkpoint: Path,
    what: str,
    images: Sequence[str],
    output: Path,
    options: Options,
    *,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw `what` to `output`, and say so; every mistake in what is asked for is found before the work begins."""
    kind = _checked(what, images, options)
    check_picture_path(output)
    loaded = load_checkpoint(checkpoint)
    target = choose_device(device)
    with Progress("silent" if quiet else "auto") as display:
        drawing = kind.draw(Task(loaded, images, options, target, display))
        save_picture(drawing.figure, output)
    record = {"what": what, "output": str(output), **network_facts(checkpoint, loaded), **drawing.record}
    if as_json:
        print_json(record)
    else:
        print_lines(f"{output}: {what} of {describe(loaded)}")


def _checked(what: str, images: Sequence[str], options: Options) -> Kind:
    kinds = _kinds()
    if what not in kinds:
        near = difflib.get_close_matches(what, kinds, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"WHAT is one of {', '.join(kinds)}, not {what!r}{meant}")
    kind = kinds[what]
    useless = [name for name in options.given() if name not in kind.options]
    if useless:
        takes = f"it takes {', '.join(sorted(kind.options))}" if kind.options else "it takes no options of its own"
        raise UserError(f"{useless[0]} has no effect on {what}; {takes}")
    if images and not kind.max_images:
        instead = "; give the images with --data" if "--data" in kind.options else ""
        raise UserError(f"{what} takes no images ({images[0]}){instead}")
    if not images and kind.min_images:
        raise UserError(
            f"{what} needs {'an image' if kind.max_images == 1 else 'images'}: alexnet visualize CHECKPOINT "
            f"{what} IMAGE --output FILE"
        )
    return kind

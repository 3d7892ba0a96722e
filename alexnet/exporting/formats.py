"""The formats that a checkpoint can be exported to: one line each, and what all of them are given and give back."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from alexnet.errors import UserError

if TYPE_CHECKING:
    from alexnet.evaluation.inputs import ImageInput
    from alexnet.exporting.accuracy import Loss
    from alexnet.exporting.verification import Verification
    from alexnet.reporting.progress import Progress
    from alexnet.training.checkpoint import Checkpoint

Weights = Literal["float32", "float16", "int8"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


@dataclass(frozen=True)
class Format:
    """A format, and the function that writes it."""

    name: str
    suffix: str
    """Of the file's name; empty where a folder is written."""
    writes: str
    """For people: what it is."""
    home: str
    """module:function of its writer, imported when it is used (see `Writer`)."""
    is_program: bool = False
    """Whether it holds the computation too. Only such a file has outputs, weights of less than float32, and is run."""
    weights: Weights = "float32"
    """How they are stored unless something else is asked for."""
    lacks: Sequence[str] = ()
    """Settings of `ExportSettings` that mean nothing for it, though it is a program."""


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format(
            "onnx",
            ".onnx",
            "an ONNX model, images in, probabilities out",
            "onnx_file:write_onnx",
            is_program=True,
            lacks=("compare", "runtime"),
        ),
        Format(
            "pt2",
            ".pt2",
            "a program of torch.export, the same inside",
            "pt2_file:write_pt2",
            is_program=True,
            lacks=("compare", "runtime"),
        ),
        Format(
            "web",
            "",
            "the page of alexnet serve, for any static host: the network runs in the browser",
            "web.site:write_web",
            is_program=True,
            weights="int8",
            lacks=("logits",),
        ),
        Format(
            "safetensors",
            ".safetensors",
            "the weights, and what a checkpoint knows about them",
            "weight_files:write_safetensors_file",
        ),
        Format(
            "torchvision",
            ".pth",
            "the weights as torchvision's own alexnet loads them",
            "weight_files:write_torchvision_file",
        ),
    )
}


@dataclass(frozen=True)
class ExportSettings:
    """What a writer is asked for beyond the checkpoint and the path. Others than programs may look at none of it."""

    weights: Weights = "float32"
    logits: bool = False
    """A second output beside the probabilities."""
    data: str | None = None
    """The data set on which the accuracy of the file is measured."""
    split: str = "val"
    images: Sequence[ImageInput] = ()
    """Photographs, or folders of them, on which the file is verified."""
    tolerance: float = 1e-4
    """The largest difference of a probability (and of a logit, relative to the largest) that is accepted."""
    compare: Path | None = None
    """A second checkpoint, for a page that shows two networks."""
    runtime: Path | None = None
    """Where the page gets ONNX Runtime Web from: a folder, or an archive of npm."""
    source: Path | None = None
    """Where the checkpoint comes from; None for one that was only in memory."""


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    format: str
    output: Path
    weights: Weights
    num_bytes: int
    """Of the file, or of all files of a folder."""
    notes: Sequence[str] = ()
    """Sentences that the person should read."""
    next_steps: Sequence[str] = ()
    """What to do with it: lines to print at the end."""
    verification: Verification | None = None
    """What running the file gave; None for formats that are not programs."""
    network: str = ""
    """The network, for people; of a page with two, the first."""
    checkpoint: str | None = None
    """Which of its run's weights were written: "last" or "best"; None where that is not known."""
    loss: Loss | None = None
    """What the file's accuracy is beside the network's own, where a data set was given."""
    details: dict[str, Any] = field(default_factory=dict)
    """Facts of the format, plain types for JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            **asdict(self),
            "output": str(self.output),
            "notes": list(self.notes),
            "next_steps": list(self.next_steps),
        }


Writer = Callable[["Checkpoint", Path, ExportSettings, "Progress"], ExportReport]
"""Writes a checkpoint to a path, under a temporary name first. Raises UserError where the format cannot hold it."""


def find_format(name: str | None, output: Path) -> Format:
    """The format of that name; without one, that of the file's suffix. Raises UserError when there is none."""
    known = ", ".join(FORMATS)
    if name is not None:
        if name in FORMATS:
            return FORMATS[name]
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"there is no format {name!r}; {hint}the formats are {known}")
    fitting = [each for each in FORMATS.values() if each.suffix and each.suffix == output.suffix.lower()]
    if len(fitting) != 1:
        raise UserError(f"the name {output.name} does not say which format is meant; give --format, one of {known}")
    return fitting[0]


def writer_of(chosen: Format) -> Writer:
    """The function that writes a format."""
    module, _, function = chosen.home.partition(":")
    return getattr(importlib.import_module(f"alexnet.exporting.{module}"), function)

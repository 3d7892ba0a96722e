"""Checkpoints: one file that describes itself, plain types and tensors only, never half written."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, get_args

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import AlexNet, Architecture
from alexnet.runtime.files import write_atomically
from alexnet.runtime.text import valid_text
from alexnet.training.checkpoint_files import FOLDER, Selection, checkpoint_file, selection_of

FORMAT = "alexnet-checkpoint"
FORMAT_VERSION = 1
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("num_classes", "image_size", "step"), int),
    **dict.fromkeys(("recipe", "metrics", "environment", "model_state"), dict),
    **dict.fromkeys(("classes", "class_names"), tuple),
    "epoch": (int, float),
    "data": str,
}


@dataclass(frozen=True)
class Checkpoint:
    """A trained (or half trained) network with everything needed to use it, and to go on training it."""

    architecture: Architecture
    num_classes: int
    image_size: int
    """Side of the network's input, pixels."""
    classes: tuple[str, ...]
    """Class ids in the order of the outputs (folder names, wnids)."""
    class_names: tuple[str, ...]
    """Names for people, in the same order."""
    preprocessing: Preprocessing
    recipe: dict[str, Any]
    data: str
    """The data set it was trained on, as given; empty for weights of another program."""
    step: int
    epoch: float
    metrics: dict[str, Any]
    """The last evaluation, with its protocol; empty before the first."""
    model_state: dict[str, torch.Tensor]
    """The weights to use: the moving average where one is kept."""
    training_state: dict[str, Any] | None
    """What resuming needs beyond the step; None in checkpoints that are only for use."""
    environment: dict[str, Any]
    selection: Selection | None = None
    """Which of its run's weights these are; None for weights of another program, and where it is not known."""

    @property
    def imported(self) -> dict[str, Any] | None:
        """Where the weights are from and what was assumed, for those of another program (`alexnet import`)."""
        return self.environment.get("imported")

    def checked(self) -> Checkpoint:
        """Return a description that was read from a file with the names of the classes as valid text.

        Raises:
            ValueError: The description cannot be of a checkpoint; a file may say anything.
        """
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{name} is of the type {type(value).__name__}")
        for name in ("model", "data", "runtime"):
            if not isinstance(self.recipe.get(name, {}), dict):
                raise ValueError(f"recipe.{name} is of the type {type(self.recipe[name]).__name__}")
        for name, value in (("num_classes", self.num_classes), ("image_size", self.image_size)):
            if value < 1:
                raise ValueError(f"{name} is {value:,}")
        for name, names in (("classes", self.classes), ("class_names", self.class_names)):
            if len(names) != self.num_classes or not all(isinstance(item, str) for item in names):
                raise ValueError(f"{name} are not {self.num_classes:,} names")
        if self.selection not in (None, *get_args(Selection)):
            raise ValueError(f"selection is {self.selection!r}")
        if not all(isinstance(tensor, torch.Tensor) for tensor in self.model_state.values()):
            raise ValueError("its weights are not all tensors")
        imported = {"file": "", "names": {}, "notes": [], **(self.environment.get("imported") or {})}
        for name, kind in (("file", str), ("names", dict), ("notes", list)):
            if not isinstance(imported[name], kind):
                raise ValueError(f"imported.{name} is of the type {type(imported[name]).__name__}")
        classes, names = tuple(map(valid_text, self.classes)), tuple(map(valid_text, self.class_names))
        return replace(self, classes=classes, class_names=names)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, keep: int = 1) -> None:
    """Write a checkpoint atomically: whatever happens, `path` holds the old file or the new one, complete.

    keep: how many checkpoints to keep; the older ones are `earlier_checkpoints(path)`. Raises RunError when the disk is
    full; what was there before is kept.
    """
    contents = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **{field: getattr(checkpoint, field) for field in checkpoint.__dataclass_fields__},
        "architecture": checkpoint.architecture.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "classes": list(checkpoint.classes),
        "class_names": list(checkpoint.class_names),
    }
    path = Path(path)
    earlier = path.with_name(f".{path.name}.earlier.tmp")
    if keep > 1 and path.is_file():
        _link(path, earlier)
    try:
        write_atomically(path, lambda file: torch.save(contents, file), _size_of(contents))
        if earlier.exists():
            for number in range(keep - 1, 1, -1):
                if (younger := _earlier(path, number - 1)).exists():
                    younger.replace(_earlier(path, number))
            earlier.replace(_earlier(path, 1))
    finally:
        earlier.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _earlier(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def earlier_checkpoints(path: Path) -> list[Path]:
    """The checkpoints that `path` has replaced and that were kept, the youngest first: last-1.pt, last-2.pt, ..."""
    found = []
    while (earlier := _earlier(path, len(found) + 1)).is_file():
        found.append(earlier)
    return found


def _size_of(value: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(_size_of(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_size_of(item) for item in value)
    return 0


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint: a file of a run, or a safetensors file that this package wrote; see `checkpoint_file`.

    No code from the file is executed (weights_only), and its checksums are verified. Raises UserError when there is
    none, when it is damaged, or when it is something else.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}. Give a run's folder, or a file in its {FOLDER}/.")
    if path.suffix == ".safetensors":
        from alexnet.hub.repository import read_weights

        return read_weights(path)
    refuse_packed(path)
    try:
        with path.open("rb") as file:
            _verify(file)
            file.seek(0)
            contents = _read(file)
    except PermissionError:
        raise UserError(f"Cannot read {path}: permission denied.") from None
    except Exception as error:  # What a damaged file makes the unpickler raise has no end of kinds.
        if _is_cut_off(path):
            raise UserError(
                f"{path} is not a checkpoint: it begins as one and is cut off after {path.stat().st_size:,} bytes; "
                "copy it again, or take another of the run's checkpoints."
            ) from error
        raise UserError(
            f"{path} is not a checkpoint: it is damaged or was not written by this package. `alexnet import FILE` "
            "makes one of the weights of other programs."
        ) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise UserError(
            f"{path} is a PyTorch file, but not a checkpoint of alexnet (it does not say format = {FORMAT}). "
            "`alexnet import FILE` makes one of the weights of other programs."
        )
    version = contents.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has checkpoint format {version}; this version of alexnet reads format {FORMAT_VERSION}."
        )
    # Files of earlier versions do not say it; their names do.
    contents = {"selection": selection_of(path), **contents}
    try:
        return _from_contents(contents)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its description is incomplete ({error}).") from None


def _is_cut_off(path: Path) -> bool:
    """Whether it begins as the archives that torch writes do, and lacks their end."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path)


def _verify(file: BinaryIO) -> None:
    """Compare everything in the file with the CRC-32 that torch.save wrote beside it, which torch.load does not do."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"checksum of {damaged}")


def refuse_packed(path: Path) -> None:
    """Raises UserError for an archive that would become larger than it is, which files of torch.save never do."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive, or a damaged one: its reader says so
    if size > path.stat().st_size:
        raise UserError(f"{path} is compressed, which files of torch.save never are; unpacked it could be any size.")


def _read(file: BinaryIO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's format; what is wrong with it is said in our own words
        return torch.load(file, map_location="cpu", weights_only=True)


def _from_contents(contents: dict[str, Any]) -> Checkpoint:
    fields = {name: contents[name] for name in Checkpoint.__dataclass_fields__}
    checkpoint = Checkpoint(
        **{
            **fields,
            "architecture": Architecture.from_dict(fields["architecture"]),
            "preprocessing": Preprocessing.from_dict(fields["preprocessing"]),
            "classes": tuple(fields["classes"]),
            "class_names": tuple(fields["class_names"]),
        }
    )
    return checkpoint.checked()


def build_model(checkpoint: Checkpoint) -> AlexNet:
    """The network of a checkpoint with its weights, in evaluation mode, on the CPU."""
    try:
        with torch.device("meta"):
            model = AlexNet(checkpoint.architecture, checkpoint.num_classes, checkpoint.image_size)
        model.load_state_dict(checkpoint.model_state, assign=True)
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:  # a record from a file can hold anything
        raise UserError(f"The checkpoint's weights do not fit its architecture: {error}") from None
    return model.requires_grad_(True).eval()


def load_model(path: str | Path) -> AlexNet:
    """The network of a checkpoint file or run folder: a plain nn.Module in evaluation mode.

    Its input is float images (N, 3, H, W) as `load_checkpoint(path).preprocessing.normalize` makes them; it returns
    logits (N, num_classes).
    """
    return build_model(load_checkpoint(path))

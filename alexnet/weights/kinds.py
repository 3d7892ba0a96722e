"""What kind of file some weights are in, from its first bytes; and what to do about kinds that are not read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from alexnet.errors import UserError
from alexnet.weights.wire import starts_like_a_message

Kind = Literal["torch", "caffemodel", "npy", "safetensors"]

READABLE = (
    "files of torch.save (.pth, .pt, also torchvision's), .caffemodel, .npy of the old TensorFlow ports, .safetensors"
)
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_HEAD_BYTES = 4096


def kind_of(path: Path) -> Kind:
    """The kind of a file. Raises UserError for a file that is not there, and for kinds that are not read."""
    try:
        size = path.stat().st_size
        if not path.is_file() and not path.is_dir():  # to open a pipe is to wait for somebody to write
            raise UserError(f"{path} is no plain file.")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except IsADirectoryError:
        inside = sorted(item.name for item in path.iterdir() if item.suffix in (".safetensors", ".pth", ".pt", ".bin"))
        hint = f", as {path / inside[0]}" if inside else ""
        raise UserError(f"{path} is a folder; give the file with the weights{hint}.") from None
    except PermissionError:
        raise UserError(f"Cannot read {path}: permission denied.") from None
    if size == 0:
        raise UserError(f"{path} is empty.")
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head.startswith(_OLD_TORCH):
        return "torch"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if _is_safetensors(head, size):
        return "safetensors"
    refusal = _refusal(head, path)
    if refusal is not None:
        raise UserError(f"{path} {refusal}")
    if starts_like_a_message(head):
        return "caffemodel"
    raise UserError(f"{path} is of no kind that is known here; weights are read from {READABLE}.")


def _is_safetensors(head: bytes, size: int) -> bool:
    """A safetensors file begins with the length of its header, in 8 bytes, and the header's brace."""
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{"


def _zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "torch"  # cut off: its reader says so
    if names and all(name.endswith(".npy") for name in names):
        raise UserError(f"{path} is an .npz archive; weights are read from {READABLE}.")
    if any(name.endswith("archive_format") for name in names) and not any(name.endswith("data.pkl") for name in names):
        raise UserError(f"{path} is a program of torch.export (.pt2); give the checkpoint or the weights it is of.")
    return "torch"


def _refusal(head: bytes, path: Path) -> str | None:
    """Why a file of a known kind is not read, and what to do instead; None for an unknown kind."""
    text = head.lstrip()[:200].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights: the download was answered with a page. Open it in a browser to see why."
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the weights themselves: run `git lfs pull` in its repository."
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return (
            "is an HDF5 file (Keras, or Caffe's other format), which is not read; weights are read from "
            f"{READABLE}. Caffe writes .caffemodel with snapshot_format: BINARYPROTO."
        )
    if path.suffix == ".onnx":
        return "is an ONNX model, which is not read; give the checkpoint or the weights that it was made of."
    if path.suffix == ".binaryproto":
        return "is a mean image of Caffe: give the .caffemodel here, and this file by --mean."
    if path.suffix == ".solverstate":
        return "is the state of Caffe's solver; the weights are in the .caffemodel beside it."
    if head.startswith(b"\x80") and head[1:2] <= b"\x05":
        return (
            "is a pickle of Python, which can run any program and is not read. In the program that wrote it: "
            "torch.save(state_dict, FILE) or safetensors."
        )
    if _is_text(head):
        what = "describes a network without its weights" if b"layer" in head else "is a text file"
        return f"{what}; weights are read from {READABLE}."
    return None


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)

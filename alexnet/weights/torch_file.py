"""Files of torch.save: the weights in them, whatever else was saved beside them, with no code from the file run.

torch's restricted unpickler (weights_only) does the reading. Objects that it does not know (argparse.Namespace, a
configuration, numpy's numbers, a whole network) become inert stand-ins that only remember what they were made of.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.errors import UserError
from alexnet.training.checkpoint import FORMAT, refuse_packed
from alexnet.weights.found import Found
from alexnet.weights.state import find_in_state

# Where training programs keep the weights, in the order in which they are preferred.
_PLACES = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("model_ema", "ema_state_dict", "state_dict_ema", "ema"),
)
_MOST_UNKNOWN = 200
_UNKNOWN = re.compile(r"Unsupported global: GLOBAL ([\w.]+) ")
_PROGRAMS = re.compile(
    r"(?:(?:os|posix|nt|sys|subprocess|commands|shutil|socket|runpy|pty|importlib|ctypes|pickle|marshal|code|operator)\."
    r"|(?:builtins|__builtin__)\.(?:eval|exec|compile|open|__import__|apply)$)"
)


class StandIn:
    """What an object of a class that is not ours becomes: it does nothing, and keeps what it was given."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class DictStandIn:
    """The same for dictionaries of other classes (defaultdict, a configuration): a dictionary of its own."""

    def __new__(cls, *arguments: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def find_torch_weights(path: Path, key: str | None) -> Found:
    """The weights of a file of torch.save.

    key: the entry that holds them, where there are several; None chooses. Raises UserError for a file that is none, is
    damaged, asks for programs to be run, or holds no weights.
    """
    contents, unknown = _load(path)
    if isinstance(contents, dict) and contents.get("format") == FORMAT:
        raise UserError(f"{path} is a checkpoint of this package already: give it to alexnet predict, evaluate, train.")
    state, place, others = _weights_in(contents, path, key)
    notes = []
    if isinstance(contents[place] if place else contents, StandIn):
        notes.append("The file holds a whole network as an object; its weights were taken, and nothing of its code.")
    elif unknown:
        notes.append(f"Left out, since only weights are read: objects of {', '.join(sorted(unknown)[:5])}.")
    if others:
        notes.append(
            f"The file holds several sets of weights; {place} was taken. --key {others[0]} takes the other."
            if len(others) == 1
            else f"The file holds several sets of weights; {place} was taken. The others: {', '.join(others)} (--key)."
        )
    return find_in_state(state, path.name, "a PyTorch file", tuple(notes))


def _load(path: Path) -> tuple[Any, set[str]]:
    """The contents, and the names of the classes that stand-ins took the place of."""
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_zip(path)
    unknown: set[str] = set()
    some_are_dicts = False
    while True:
        stand_ins = [
            (DictStandIn if some_are_dicts and not name.startswith("numpy.") else StandIn, name) for name in unknown
        ]
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
                warnings.simplefilter("ignore")
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True if is_zip else None), unknown
        except PermissionError:
            raise UserError(f"Cannot read {path}: permission denied.") from None
        except Exception as error:  # what a damaged file makes the unpickler raise has no end of kinds
            match = _UNKNOWN.search(str(error))
            blocked = re.search(r"unsupported GLOBAL ([\w.]+) whose module", str(error))
            wanted = (match or blocked or [None, None])[1]
            if wanted is not None and "." not in wanted:
                wanted = f"builtins.{wanted}"
            if "Can only SETITEM" in str(error) and not some_are_dicts:
                some_are_dicts = True
                continue
            if wanted is None or wanted in unknown or len(unknown) >= _MOST_UNKNOWN:
                raise UserError(f"{path} cannot be read: {_reason(error)}.") from None
            if blocked or _PROGRAMS.match(wanted):
                raise UserError(
                    f"{path} asks for {wanted} to be called when it is read, which weights never need: the file was "
                    "made to run a program. Nothing in it was run. Get the weights elsewhere."
                ) from None
            unknown.add(wanted)


def _reason(error: Exception) -> str:
    if "persistent_load" in str(error):  # the old format keeps the source code of a class beside the object
        return (
            "it holds a whole network in torch's old format. In torch, where you trust the file: "
            "torch.save(torch.load(FILE, weights_only=False).state_dict(), 'weights.pth'), then import weights.pth"
        )
    if "reduce for unrecognized function" in str(error):
        return "it asks for something to be called that weights never need, and nothing in it was run"
    return (
        "it is damaged, was not written by torch.save, or holds objects beside the weights that cannot be left out "
        f"({type(error).__name__})"
    )


def _check_zip(path: Path) -> None:
    """Raises UserError for archives that hold programs, and for such as would become larger than they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise UserError(f"{path} is damaged: its table of contents cannot be read.") from None
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise UserError(
            f"{path} is a TorchScript program, and programs are not read. In torch: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth'), then import weights.pth."
        )
    if "data.pkl" not in names:
        raise UserError(f"{path} is a zip file, but none of torch.save.")
    refuse_packed(path)


def _weights_in(contents: Any, path: Path, key: str | None) -> tuple[dict[str, Tensor], str, list[str]]:
    """A state dict, where it was ("" for the whole file), and the other places that hold one."""
    places = dict(_places(contents))
    if key is not None:
        if key not in places:
            known = ", ".join(repr(place) for place in places if place) or "none"
            raise UserError(f"{path} has no weights under {key!r}; it has {known}.")
        return places[key], key, []
    if not places:
        what = f"a dictionary of {', '.join(map(str, list(contents)[:6]))}" if isinstance(contents, dict) else "no dict"
        raise UserError(f"{path} is a PyTorch file without weights that could be found: it holds {what}.")
    order = ["", *_PLACES]
    best = min(places, key=lambda place: order.index(place) if place in order else len(order))
    return places[best], best, [place for place in places if place != best]


def _places(contents: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Everything in a file that is a state dict; "" is the file itself."""
    whole = _as_state(contents)
    if whole:
        yield "", whole
    elif isinstance(contents, Mapping):
        for place, value in contents.items():
            state = _as_state(value)
            if state and isinstance(place, str) and place != "optimizer":
                yield place, state


def _as_state(value: Any) -> dict[str, Tensor]:
    """The tensors by name, of a state dict or of a network that was saved whole; nothing for anything else."""
    if isinstance(value, StandIn):
        return dict(_of_module(value, "", set()))
    if not isinstance(value, Mapping):
        return {}
    tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
    return tensors if any(name.endswith("weight") for name in tensors) else {}


def _of_module(module: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of an nn.Module's remains: its own, then those of the modules in it, each once."""
    state = module.state if isinstance(module, StandIn) else None
    if not isinstance(state, Mapping) or id(module) in seen or len(prefix) > 200:
        return
    seen.add(id(module))
    for group in ("_parameters", "_buffers"):
        for name, tensor in (state.get(group) or {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, inner in (state.get("_modules") or {}).items():
        yield from _of_module(inner, f"{prefix}{name}.", seen)

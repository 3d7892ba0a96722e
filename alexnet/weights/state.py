"""From a dictionary of tensors with anybody's names to weights with ours: PyTorch's files and safetensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from alexnet.errors import UserError
from alexnet.weights.found import Found
from alexnet.weights.names import are_ours, ours, unwrapped

_SHOWN = 6
_COUNTERS = ("num_batches_tracked",)
_NOT_WEIGHTS = {"n_averaged"}  # of torch.optim.swa_utils.AveragedModel


def find_in_state(state: Mapping[str, Tensor], name: str, form: str, notes: tuple[str, ...] = ()) -> Found:
    """The weights in a state dict of the file `name`: torchvision's names or ours, whatever wraps them.

    Raises UserError for names that are neither.
    """
    plain, before = unwrapped({key: value for key, value in state.items() if key not in _NOT_WEIGHTS})
    translated = ours(plain)
    if translated is not None:
        tensors, torchvision_names = translated
        names = {key: before[theirs] for key, theirs in torchvision_names.items()}
        return Found(f"{form} with torchvision's names", tensors, names, ("torchvision",), notes=notes)
    if are_ours(plain):
        return Found(f"{form} with this package's names", plain, before, notes=notes)
    keys = [key for key in plain if not key.endswith(_COUNTERS)]
    shown = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
    raise UserError(
        f"{name} is {form}, but its weights have neither torchvision's names (features.0.weight) nor this package's "
        f"(conv1.weight): {shown or 'there are none'}. Rename them in the program that wrote the file, and save "
        "again."
    )

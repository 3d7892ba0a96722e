"""Every random draw of a run, as a pure function of the seed, a purpose and a position.

Nothing here has a state that must be saved: what step t draws follows from `(seed, purpose, t)`. A resumed run
therefore needs a step number and nothing else, and no draw depends on threads, ranks or what was drawn before. The
generator is Philox, which is counter-based: the position is its counter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch


def random_stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """A generator that depends on its arguments alone.

    `purpose` names what is drawn ("order", "crop", "dropout/fc6"); `position` is up to three non-negative numbers, such
    as a step or an epoch. Streams of different arguments are independent.
    """
    key = np.frombuffer(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest(), dtype=np.uint64)
    counter = np.zeros(4, dtype=np.uint64)  # word 0 counts the blocks within the stream
    counter[1 : 1 + len(position)] = position
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def draw_dropout_masks(
    layers: Mapping[str, tuple[int, float]], *, seed: int, step: int, batch_size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """The dropout masks of one step, for the whole batch.

    `layers` maps a dropout layer's name to (features, rate). Returns bool tensors (batch_size, features), True = keep;
    they are drawn on the host, so that every device sees the same masks.
    """
    masks = {}
    for name, (features, rate) in layers.items():
        # 16 bits a unit: the rate is exact for 0.5 and within 1/65536 for any other.
        draws = random_stream(seed, f"dropout/{name}", step).integers(
            0, 65536, size=(batch_size, features), dtype=np.uint16
        )
        masks[name] = torch.from_numpy(draws >= round(rate * 65536)).to(device, non_blocking=True)
    return masks

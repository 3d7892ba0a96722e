"""The dropout masks of `runtime.randomness.draw_dropout_masks`, made on the device: the same bits, and no host time.

NumPy's Philox is counter-based: four 64-bit words follow from (key, counter) by ten rounds of multiplications, and its
16-bit integers are those words cut into four, lowest first. So each program computes the words it needs, and a mask for
a batch of 1024 costs microseconds on a GPU in place of tens of milliseconds on a core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from alexnet.ops.triton_runtime import can_run, constexpr, current_device_of, divide_up, jit, tl

_BLOCK = 128
"""Counters a program goes through; each gives 16 units."""


def supports(device: torch.device) -> bool:
    """Whether masks can be drawn on this device."""
    return can_run(device)


def draw_masks(
    layers: Mapping[str, tuple[int, float]], *, seed: int, step: int, batch_size: int, device: torch.device
) -> dict[str, Tensor]:
    """Arguments and result of `draw_dropout_masks`, bit for bit; the masks are drawn on the device."""
    masks = {}
    for name, (features, rate) in layers.items():
        # The key of random_stream(seed, f"dropout/{name}", step).
        digest = hashlib.blake2b(f"{seed}/dropout/{name}".encode(), digest_size=16).digest()
        keys = [int.from_bytes(digest[start : start + 8], "little", signed=True) for start in (0, 8)]
        mask = torch.empty(batch_size, features, dtype=torch.bool, device=device)
        if mask.numel():
            with current_device_of(mask):
                _draw[(divide_up(mask.numel(), 16 * _BLOCK),)](
                    mask.view(torch.uint8), mask.numel(), keys[0], keys[1], step, round(rate * 65536),
                    BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False,
                )  # fmt: skip
        masks[name] = mask
    return masks


@jit
def _draw(mask_pointer, num_units, key0, key1, step, threshold, BLOCK: constexpr):
    index = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    # The generator counts up before it draws.
    c0 = (index + 1).to(tl.uint64)
    c1 = tl.zeros_like(c0) + step
    c2 = tl.zeros_like(c0)
    c3 = tl.zeros_like(c0)
    k0 = tl.zeros_like(c0) + key0
    k1 = tl.zeros_like(c0) + key1
    # Philox 4x64-10 (Salmon et al. 2011): its multipliers, and the steps of its keys.
    m0 = tl.full(c0.shape, 0xD2E7470EE14C6C93, tl.uint64)
    m1 = tl.full(c0.shape, 0xCA5A826395121157, tl.uint64)
    w0 = tl.full(c0.shape, 0x9E3779B97F4A7C15, tl.uint64)
    w1 = tl.full(c0.shape, 0xBB67AE8584CAA73B, tl.uint64)
    for _ in tl.static_range(10):
        high0 = tl.umulhi(m0, c0)
        high1 = tl.umulhi(m1, c2)
        low0 = m0 * c0
        low1 = m1 * c2
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 += w0
        k1 += w1
    for word in tl.static_range(4):
        bits = c0 if word == 0 else (c1 if word == 1 else (c2 if word == 2 else c3))
        for part in tl.static_range(4):
            draw = ((bits >> (16 * part)) & 0xFFFF).to(tl.int32)
            unit = index * 16 + word * 4 + part
            tl.store(mask_pointer + unit, (draw >= threshold).to(tl.uint8), mask=unit < num_units)

"""Every Triton kernel compiles for Ampere and Hopper: Triton brings its assembler along, and no GPU is needed."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not tested")

# In a process of its own: there the kernels are not made for the interpreter.
SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")  # what Triton says about its own defaults
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from alexnet.ops import triton_input, triton_masks, triton_norm, triton_pool, triton_spatial, triton_update

TYPES = dict(
    num_rows="i32", num_units="i32", key0="i64", key1="i64", step="i32", threshold="i32", positions="i32",
    num_elements="i32", scale="fp32", beta="fp32", k="fp32", momentum="fp32", weight_decay="fp32",
    places_pointer="*u8", pixels_pointer="*u8", flips_pointer="*u8", offsets_pointer="*i64",
    mean_pointer="*fp32", divisors_pointer="*fp32", shift_pointer="*fp32", divisor="*fp32", lr="*fp32",
    weight_pointer="*fp32", velocity_pointer="*fp32", through_pointer="*fp32",
)


def build(kernel, capability, dtype="bf16", **constants):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else TYPES.get(n, "*" + dtype) for n in names}
    pointers = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n][0] == "*"}
    source = ASTSource(kernel, signature, {(names.index(n),): v for n, v in constants.items()}, pointers)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
    # 99 KB is what a block may have on the Ampere cards that have least.
    assert built.metadata.shared <= 99 * 1024, (kernel.__name__, built.metadata.shared)
    print("built", kernel.__name__, capability, dtype, built.metadata.shared)


for capability in (80, 90):
    for dtype, parts in (("bf16", 2), ("fp32", 3)):
        across = dict(MAPS=256, PER_TOWER=128, SIZE=5, FAST_POWER=True, RELU=True, ROWS=64, TILES=8, BLOCK=64, HALO=8)
        for kernel in (triton_norm._forward_banded, triton_norm._backward_banded):
            build(kernel, capability, dtype, **across, PARTS=parts, OPERAND=tl.bfloat16)
        within = dict(MAPS=256, HEIGHT=27, WIDTH=27, SIZE=5, FAST_POWER=True, ROWS=32, BLOCK=64)
        for kernel in (triton_spatial._forward, triton_spatial._backward_through, triton_spatial._backward_sum):
            build(kernel, capability, dtype, **within)
        pool = dict(MAPS=96, HEIGHT=55, WIDTH=55, OUT_HEIGHT=27, OUT_WIDTH=27, SIZE=3, STRIDE=2, ROWS=32, BLOCK=64)
        build(triton_pool._forward, capability, dtype, **pool, RELU=True)
        build(triton_pool._backward, capability, dtype, **pool, OVERLAP=2, NONE=255)
        build(
            triton_update._update, capability, dtype,
            SGD=False, DECAY=True, SHADOW=dtype == "bf16", LR_ON_DEVICE=True, BLOCK=2048,
        )
        build(
            triton_input._make_inputs, capability, dtype,
            SIZE=224, SOURCE=256, SIDE=256, CENTER=16, IS_SQUARE=True, HAS_OFFSETS=True, HAS_FLIPS=True, HAS_SHIFT=True,
            MEAN_PIXELS=True, MEAN_AT_CROP=True, MEAN_FLIPS=True, UNIT=False, DIVISOR_ON_DEVICE=True, DIVIDE=True,
            BGR=False, BLOCK_SIDE=4, BEFORE=0, EXTENT=57, BLOCK=1024,
        )
    shifted = dict(MAPS=96, PER_TOWER=48, SIZE=5, FAST_POWER=True, RELU=True, ROWS=32, BLOCK=64)
    for kernel in (triton_norm._forward_shifted, triton_norm._backward_shifted):
        build(kernel, capability, **shifted)
    build(triton_masks._draw, capability, "u8", BLOCK=128)
    # Triton makes a constant of an integer argument that is 1.
    build(triton_masks._draw, capability, "u8", BLOCK=128, step=1)
    build(triton_norm._forward_banded, capability, **across, PARTS=2, OPERAND=tl.bfloat16, num_rows=1)
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_ampere_and_hopper(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("built") == 2 * (2 * 9 + 5)

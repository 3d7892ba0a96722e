"""The block operator against its layers one by one in float64, and against itself in other circumstances."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.models import ARCHITECTURES, AlexNet, build_network
from alexnet.ops import block as block_module
from alexnet.ops import native
from alexnet.ops.block import Block, Pool, apply_block, plain_block
from alexnet.ops.chunked_norm import Norm, formula

needs_kernels = pytest.mark.skipif(not native.AVAILABLE, reason="the C kernels were not built (no compiler)")

NORM = Norm(5, 2e-5, 0.75, 2.0, 2)
SPATIAL = Norm(5, 4e-5, 0.75, 1.0, None)
POOL = Pool(3, 2, True)
AS_RUN_1 = Block(norm=NORM, pool=POOL, relu_last=True)
AS_RUN_2 = Block(True, NORM, SPATIAL, POOL)
BLOCKS = {
    "as_run conv1": AS_RUN_1,
    "as_run conv2": AS_RUN_2,
    "paper": Block(True, NORM, None, POOL),
    "norm": Block(norm=NORM),
    "spatial norm": Block(spatial=SPATIAL),
    "ReLU and pool": Block(relu_first=True, pool=POOL),
    "pool and ReLU": Block(pool=POOL, relu_last=True),
}


def maps_of(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 40.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return maps.to(dtype).contiguous(memory_format=torch.channels_last)


def run(function: Any, maps: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Outputs, and the gradient of the maps for a fixed upstream gradient."""
    leaf = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    outputs = function(leaf, block)
    outputs.backward(maps_of(*outputs.shape, seed=9, scale=1.0).to(outputs.dtype))
    assert leaf.grad is not None
    return outputs.detach(), leaf.grad


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def layers_in_double(maps: Tensor, block: Block) -> Tensor:
    """Every layer by its formula, in float64."""
    maps = maps.double()
    maps = maps.clamp(min=0) if block.relu_first else maps
    for norm in (block.norm, block.spatial):
        maps = maps if norm is None else formula(maps, norm)
    if block.pool is not None:
        size, stride, ceil_mode = block.pool
        maps = torch.nn.functional.max_pool2d(maps, size, stride, ceil_mode=ceil_mode)
    return maps.clamp(min=0) if block.relu_last else maps


@pytest.fixture(params=["kernels", "plain torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "kernels" and not native.AVAILABLE:
        pytest.skip("the C kernels were not built (no compiler)")
    monkeypatch.setattr(native, "AVAILABLE", request.param == "kernels")
    return request.param


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", [(3, 96, 27, 27), (1, 12, 13, 14), (2, 70, 9, 5)])
def test_a_block_is_its_layers_forward_and_backward(way: str, name: str, shape: tuple[int, ...]) -> None:
    maps = maps_of(*shape)
    for actual, expected in zip(
        run(apply_block, maps, BLOCKS[name]), run(layers_in_double, maps, BLOCKS[name]), strict=True
    ):
        assert actual.dtype == torch.float32
        assert relative_error(actual, expected) < 1e-6


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_differs_from_exact_arithmetic_by_one_rounding(way: str, name: str) -> None:
    maps = maps_of(2, 96, 13, 13, dtype=torch.bfloat16)
    outputs, gradients = run(apply_block, maps, BLOCKS[name])
    exact_outputs, exact_gradients = run(layers_in_double, maps, BLOCKS[name])
    assert outputs.dtype == gradients.dtype == torch.bfloat16
    # Plain torch rounds after every layer, and rounded neighbours can tie in a pool.
    tolerance = 2**-8 if way == "kernels" else 0.2
    assert relative_error(outputs, exact_outputs) < min(tolerance, 0.02)
    assert relative_error(gradients, exact_gradients) < tolerance


@needs_kernels
@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 4),
    per_tower=st.integers(1, 40),
    towers=st.integers(1, 3),
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    relu_first=st.booleans(),
    size=st.one_of(st.none(), st.integers(1, 7)),
    spatial_size=st.sampled_from([None, 1, 3, 5, 7]),
    pool=st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 4), st.booleans())),
    beta=st.sampled_from([0.75, 0.5]),
    relu_last=st.booleans(),
)
def test_any_block_agrees_with_its_layers(
    batch: int,
    per_tower: int,
    towers: int,
    height: int,
    width: int,
    relu_first: bool,
    size: int | None,
    spatial_size: int | None,
    pool: tuple[int, int, bool] | None,
    beta: float,
    relu_last: bool,
) -> None:
    block = Block(
        relu_first,
        None if size is None else Norm(size, 1e-4, beta, 1.5, towers),
        None if spatial_size is None else Norm(spatial_size, 1e-5, beta, 1.0, None),
        None if pool is None else Pool(*pool),
        relu_last and pool is not None,
    )
    maps = maps_of(batch, per_tower * towers, height, width)
    outputs, gradients = run(apply_block, maps, block)
    expected_outputs, expected_gradients = run(layers_in_double, maps, block)
    torch.testing.assert_close(outputs.double(), expected_outputs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients.double(), expected_gradients.double(), rtol=1e-4, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_and_batch_do_not_change_a_bit(name: str, dtype: torch.dtype) -> None:
    maps = maps_of(5, 96, 27, 27, dtype=dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(apply_block, maps, BLOCKS[name])
        torch.set_num_threads(2)
        together = run(apply_block, maps, BLOCKS[name])
        # One image on two threads is cut into strips.
        last = apply_block(maps[4:], BLOCKS[name])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])
    assert torch.equal(last, together[0][4:])


@needs_kernels
@pytest.mark.parametrize("instruction_set", range(3))
def test_every_instruction_set_of_this_processor_computes_the_same(
    instruction_set: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = native._loaded()
    if instruction_set > library.instruction_set:
        pytest.skip(f"this processor has no {native.INSTRUCTION_SETS[instruction_set]}")
    expected = run(apply_block, maps_of(2, 96, 13, 13), AS_RUN_2)
    monkeypatch.setattr(native, "_library", library._replace(instruction_set=instruction_set))
    for actual, reference in zip(run(apply_block, maps_of(2, 96, 13, 13), AS_RUN_2), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-5, atol=1e-5)


def test_equal_values_give_the_gradient_to_the_first_of_a_window(way: str) -> None:
    maps = torch.ones(1, 1, 5, 5).contiguous(memory_format=torch.channels_last)
    _, gradients = run(apply_block, maps, Block(pool=Pool(3, 2, False)))
    _, expected = run(plain_block, maps, Block(pool=Pool(3, 2, False)))
    assert torch.equal(gradients, expected)
    assert gradients.nonzero()[:, 2:].tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]


def test_a_relu_stops_the_gradient_at_and_below_zero(way: str) -> None:
    maps = torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1)
    for block in (
        Block(relu_first=True, norm=Norm(1, 1e-4, 0.75, 1.0, 1)),
        Block(pool=Pool(1, 1, False), relu_last=True),
    ):
        outputs, gradients = run(apply_block, maps, block)
        assert (outputs > 0).flatten().tolist() == [False, False, True]
        assert (gradients != 0).flatten().tolist() == [False, False, True]


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_not_a_number_stays_visible(way: str, name: str) -> None:
    maps = maps_of(1, 24, 9, 9)
    maps[0, 5, 4, 4] = float("nan")
    assert apply_block(maps, BLOCKS[name])[0, 5].isnan().any()


def test_contiguous_maps_come_back_contiguous(way: str) -> None:
    maps = maps_of(2, 12, 9, 9)
    outputs = apply_block(maps.contiguous(), AS_RUN_1)
    assert outputs.is_contiguous()
    assert torch.equal(outputs, apply_block(maps, AS_RUN_1))


@needs_kernels
def test_it_compiles_without_a_break_and_exports_to_plain_operations() -> None:
    maps = maps_of(2, 24, 9, 9)
    eager = run(apply_block, maps, AS_RUN_2)
    compiled = torch.compile(apply_block, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(run(compiled, maps, AS_RUN_2), eager, strict=True):
        assert torch.equal(actual, expected)

    class Exported(torch.nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return apply_block(maps, AS_RUN_2)

    program = torch.export.export(Exported(), (maps,))
    assert "alexnet" not in program.graph_module.code  # it runs where this package is not installed
    torch.testing.assert_close(program.module()(maps), eager[0], rtol=1e-5, atol=1e-4)


def test_torchs_own_checks_of_the_operator_pass() -> None:
    if not native.AVAILABLE:
        pytest.skip("the C kernels were not built (no compiler)")
    maps = maps_of(2, 6, 7, 7).requires_grad_()
    arguments = (maps, *block_module._flat(AS_RUN_2))
    torch.library.opcheck(torch.ops.alexnet.block.default, arguments)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_variant_gives_what_its_layers_give_one_by_one(name: str) -> None:
    architecture = ARCHITECTURES[name]
    model = build_network(name, 5, seed=1).eval()
    side = model.image_size
    images = maps_of(2, 3, side, side, scale=60.0 if architecture.input_scale == "pixels" else 1.0)
    with torch.no_grad():
        together, (*_, last) = model(images), model.activations(images).values()
    assert relative_error(together, last) < 1e-5


def test_stages_name_every_layer_once_and_in_order() -> None:
    for architecture in ARCHITECTURES.values():
        with torch.device("meta"):
            stages = AlexNet(architecture).stages()
        assert [name for stage in stages for name in stage.names] == [layer.name for layer in architecture.layers]
    with torch.device("meta"):
        stages = [stage.names for stage in AlexNet(ARCHITECTURES["as_run"]).stages()]
    assert ("norm1", "pool1", "relu1") in stages
    assert ("relu2", "norm2", "cnorm2", "pool2") in stages


def test_a_layer_with_a_hook_runs_by_itself() -> None:
    model = build_network("cifar_11pct", 5, seed=1).eval()
    images = maps_of(2, 3, 24, 24, scale=60.0)
    expected = model.activations(images, ["norm2"])["norm2"]
    seen: list[Tensor] = []
    handle = model.norm2.register_forward_hook(lambda module, inputs, output: seen.append(output))  # type: ignore[union-attr]
    logits = model(images)
    handle.remove()
    assert len(seen) == 1
    assert torch.equal(seen[0], expected)
    torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-4)
    assert len(seen) == 1


def test_the_environment_can_leave_the_kernels_unused() -> None:
    code = "from alexnet.ops import native; print(native.AVAILABLE)"
    for value, expected in (("0", "False"), ("1", str(native.AVAILABLE))):
        environment = {**os.environ, "ALEXNET_NATIVE": value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected

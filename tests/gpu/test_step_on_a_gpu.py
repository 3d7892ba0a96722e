"""The training step on a CUDA device: graphed against eager, resumed against unbroken, and no wait for the device."""

import copy
import os

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alexnet.config import OptimizerConfig
from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.transfer import batches_on_device
from alexnet.models import build_network
from alexnet.ops.triton_input import InputMaker
from alexnet.ops.triton_runtime import can_run
from alexnet.runtime.cuda_graph import CudaRunner, GraphedCall
from alexnet.runtime.randomness import draw_dropout_masks
from alexnet.training.graphed_step import GraphedStep
from alexnet.training.optimizer import build_optimizer
from alexnet.training.step import train_step

CUDA = torch.device("cuda")
BATCH_SIZE, NUM_CLASSES = 16, 10

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class EagerRunner(CudaRunner):
    """Every call is an eager one: the same function as the graph's, without the graph."""

    def capture(self, function, inputs):
        result = self.eagerly(function, inputs)
        first = [result]

        def replay():
            # The capture above has computed the first of them already.
            values = first.pop() if first else self.eagerly(function, inputs)
            for kept, value in zip(result, values, strict=True):
                kept.copy_(value)

        return replay, result


@pytest.fixture
def deterministic():
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def model():
    model = build_network("as_run", NUM_CLASSES, seed=1)
    return model.to(device=CUDA, memory_format=torch.channels_last).train()


@pytest.fixture(scope="module")
def preprocessing():
    mean = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(0)) * 255
    return Preprocessing(256, 224, "pixels", "rgb", "at_crop", mean)


def make_batch(step):
    generator = torch.Generator().manual_seed(step)
    return Batch(
        step=step,
        indices=np.arange(BATCH_SIZE),
        labels=torch.randint(0, NUM_CLASSES, (BATCH_SIZE,), generator=generator),
        crops=torch.randint(0, 256, (BATCH_SIZE, 224, 224, 3), dtype=torch.uint8, generator=generator),
        offsets=torch.randint(0, 33, (BATCH_SIZE, 2), generator=generator),
        flips=torch.rand(BATCH_SIZE, generator=generator) < 0.5,
        color_shift=torch.randn(BATCH_SIZE, 3, generator=generator) * 10,
        divisor=1.1,
    )


def take_steps(step, model, optimizer, preprocessing, steps, dtype, micro_batch_size=BATCH_SIZE):
    results = []
    layers = {name: (features, 0.5) for name, features in model.dropout_layers.items()}
    for batch in batches_on_device((make_batch(number) for number in steps), CUDA):
        masks = draw_dropout_masks(layers, seed=0, step=batch.step, batch_size=BATCH_SIZE, device=CUDA)
        result = step(
            model,
            optimizer,
            batch,
            preprocessing=preprocessing,
            dropout_masks=masks,
            micro_batch_size=micro_batch_size,
            label_smoothing=0.0,
            device=CUDA,
            dtype=dtype,
        )
        results.append(result)
    return torch.stack([result.loss for result in results]).cpu()


def optimizer_of(model):
    return build_optimizer(model, OptimizerConfig(lr=1e-3))


def largest_difference(model, other):
    """Relative to each parameter's largest element."""
    return max(
        float((parameter - other.get_parameter(name)).abs().max() / other.get_parameter(name).abs().max())
        for name, parameter in model.named_parameters()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replayed_graph_gives_the_bits_of_the_same_step_run_eagerly(model, preprocessing, deterministic, dtype):
    eager, graphed = copy.deepcopy(model), copy.deepcopy(model)
    expected = take_steps(GraphedStep(EagerRunner(CUDA)), eager, optimizer_of(eager), preprocessing, range(6), dtype)
    step = GraphedStep()
    losses = take_steps(step, graphed, optimizer_of(graphed), preprocessing, range(6), dtype)
    assert step.reason is None and step.is_captured
    assert torch.equal(losses, expected)
    assert largest_difference(graphed, eager) == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("micro_batch_size", [BATCH_SIZE, 6])
def test_it_is_the_step_of_train_step_to_rounding(
    model, preprocessing, deterministic, dtype, tolerance, micro_batch_size
):
    eager, graphed = copy.deepcopy(model), copy.deepcopy(model)
    settings = (preprocessing, range(6), dtype, micro_batch_size)
    expected = take_steps(train_step, eager, optimizer_of(eager), *settings)
    step = GraphedStep()
    losses = take_steps(step, graphed, optimizer_of(graphed), *settings)
    assert step.reason is None and step.is_captured
    torch.testing.assert_close(losses, expected, rtol=tolerance, atol=tolerance)
    assert largest_difference(graphed, eager) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_bit_identical(model, preprocessing, deterministic, dtype):
    unbroken = copy.deepcopy(model)
    optimizer = optimizer_of(unbroken)
    step = GraphedStep()
    take_steps(step, unbroken, optimizer, preprocessing, range(7), dtype)
    saved = copy.deepcopy((unbroken.state_dict(), optimizer.state_dict()))
    expected = take_steps(step, unbroken, optimizer, preprocessing, range(7, 14), dtype)

    resumed = copy.deepcopy(model)
    resumed.load_state_dict(saved[0])
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(saved[1])
    losses = take_steps(GraphedStep(), resumed, optimizer, preprocessing, range(7, 14), dtype)
    assert torch.equal(losses, expected)
    assert largest_difference(resumed, unbroken) == 0


def test_a_frozen_layer_is_captured_anew_and_left_alone(model, preprocessing):
    graphed = copy.deepcopy(model)
    optimizer = optimizer_of(graphed)
    step = GraphedStep()
    take_steps(step, graphed, optimizer, preprocessing, range(5), torch.bfloat16)
    for group in optimizer.param_groups:
        if group["layer"] == "conv1":
            group["lr"] = 0.0
    conv1, conv2 = graphed.conv1.weight.detach().clone(), graphed.conv2.weight.detach().clone()
    take_steps(step, graphed, optimizer, preprocessing, range(5, 11), torch.bfloat16)
    assert step.reason is None and step.is_captured
    assert torch.equal(graphed.conv1.weight, conv1) and not torch.equal(graphed.conv2.weight, conv2)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch calls the mode a prototype
def test_replayed_steps_never_wait_for_the_device(model, preprocessing):
    graphed = copy.deepcopy(model)
    optimizer = optimizer_of(graphed)
    step = GraphedStep()
    take_steps(step, graphed, optimizer, preprocessing, range(5), torch.bfloat16)
    assert step.is_captured
    batches = list(batches_on_device((make_batch(number) for number in range(5, 8)), CUDA, ahead=3))
    layers = {name: (features, 0.5) for name, features in graphed.dropout_layers.items()}
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            masks = draw_dropout_masks(layers, seed=0, step=batch.step, batch_size=BATCH_SIZE, device=CUDA)
            result = step(
                graphed,
                optimizer,
                batch,
                preprocessing=preprocessing,
                dropout_masks=masks,
                micro_batch_size=BATCH_SIZE,
                label_smoothing=0.0,
                device=CUDA,
                dtype=torch.bfloat16,
            )
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert torch.isfinite(result.loss)


def test_what_cannot_be_captured_falls_back_with_a_reason(model, preprocessing):
    waiting = copy.deepcopy(model)
    # Reading a value on the host is what a capture cannot have.
    waiting.fc8.register_forward_hook(lambda module, inputs, output: output * float(output.abs().max() >= 0))
    told = []
    step = GraphedStep(on_fallback=told.append)
    losses = take_steps(step, waiting, optimizer_of(waiting), preprocessing, range(6), torch.bfloat16)
    assert len(told) == 1 and told[0].startswith("the step cannot be captured: ")
    assert torch.isfinite(losses).all()


def test_a_graphed_call_replays_on_new_inputs():
    call = GraphedCall(lambda inputs: inputs["a"] * 2 + inputs["b"], CudaRunner(CUDA), CUDA, eager_calls=2)
    for number in range(6):
        a, b = torch.full((1000,), float(number)), torch.arange(1000.0, device=CUDA)
        assert torch.equal(call({"a": a.pin_memory(), "b": b}), a.to(CUDA) * 2 + b)
    assert call.num_captures == 1


def test_batches_keep_their_content_on_the_way():
    given = [make_batch(number) for number in range(12)]
    for batch, expected in zip(batches_on_device(iter(given), CUDA, ahead=3), given, strict=True):
        torch.cuda._sleep(2_000_000)  # the device is behind the host, so that memory used too early would show
        for name in ("labels", "crops", "offsets", "flips", "color_shift"):
            moved = getattr(batch, name)
            assert moved.device.type == "cuda"
            assert torch.equal(moved.cpu(), getattr(expected, name))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_conv1_over_blocks_is_conv1(model, preprocessing, dtype, tolerance):
    if not can_run(CUDA):
        pytest.skip("Triton is not installed or does not run here")
    make = InputMaker(preprocessing, CUDA)
    batch = make_batch(0)
    arguments = {"offsets": batch.offsets.to(CUDA), "flips": batch.flips.to(CUDA), "dtype": dtype}
    images = make(batch.crops.to(CUDA), **arguments)
    weight = model.conv1.weight.detach().to(dtype)
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        # The padding of 3 is conv1's own (the 55th window reaches over the edge); the fourth fills the last block.
        expected = F.conv2d(F.pad(images, (0, 3, 0, 3)), weight, stride=4)
        blocks = make(batch.crops.to(CUDA), block=4, padding=(0, 4), **arguments)
        actual = F.conv2d(blocks, F.pixel_unshuffle(F.pad(weight, (0, 1, 0, 1)), 4))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max() / expected.abs().max()) < tolerance

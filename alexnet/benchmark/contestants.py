"""The contestants: this package's own step, and the steps that people would otherwise write.

All start from the same bytes, (B, h, w, 3) uint8, and from the same weights where the network is the same. Ours does
what a training does with them: its preprocessing with colour noise and each crop's part of the mean image, its dropout
masks, its update. The baselines subtract one mean and divide by one deviation a channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.benchmark.job import NUM_CLASSES, Job
from alexnet.benchmark.textbook import TextbookNetwork
from alexnet.config import OptimizerConfig, RuntimeConfig
from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.models import AlexNet, Architecture, build_network, get_architecture
from alexnet.models.architecture import ResponseNorm, SpatialNorm
from alexnet.ops import native, triton_masks
from alexnet.ops.working_copy import working_copies
from alexnet.runtime.device import Execution, configure
from alexnet.runtime.randomness import draw_dropout_masks
from alexnet.training.graphed_step import GraphedStep
from alexnet.training.optimizer import MomentumSGD, build_optimizer
from alexnet.training.step import train_step

NUM_BATCHES = 2
"""Batches that take turns, so that no step finds the last one's images in a cache."""
LEVERS = {
    "conv1-direct": "ours with conv1 as a strided convolution",
    "conv1-by-blocks": "ours with conv1 by space-to-depth",
    "plain-torch": "ours without the package's kernels",
    "no-norm": "ours without the normalisation layers: what is left of the step is not theirs",
}
# So small that the labels are not learned: dead units and vanishing gradients would be easier to compute with.
_LR = 1e-5
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
_SEED = 0


@dataclass(frozen=True)
class Contestant:
    """Something that does a step of the job on a batch."""

    settings: str
    """What it is run with, in a few words."""
    step: Callable[[Batch], Tensor]
    """Training: one update, returns the loss. Inference: returns the logits."""
    architecture: Architecture
    device: torch.device
    model: nn.Module | None
    """Called once in a step; None where it is not torch that computes."""
    optimizer: torch.optim.Optimizer | None = None


@dataclass(frozen=True)
class Flags:
    """What a person can set about plain torch without writing anything."""

    autocast: bool = False
    channels_last: bool = False
    fused: bool = False
    compiled: bool = False

    def describe(self, device: torch.device, training: bool) -> str:
        """In a few words."""
        words = [
            "autocast bfloat16" if self.autocast else "float32",
            "channels-last" if self.channels_last else "contiguous",
        ]
        if device.type == "cuda" and not self.autocast:
            words.append("TF32 in convolutions")  # torch's default
        if training:
            words.append("torch.optim.SGD(fused=True)" if self.fused else "torch.optim.SGD")
        if self.compiled:
            words.append("torch.compile")
        return ", ".join(words)


def random_batches(architecture: Architecture, batch_size: int) -> list[Batch]:
    """Batches of random bytes for a network, with all that a training's batch carries."""
    size = architecture.image_size
    margin = _stored_size(size) - size
    generator = torch.Generator().manual_seed(_SEED)

    def integers(high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(high, shape, generator=generator, dtype=dtype)

    return [
        Batch(
            step=step,
            indices=np.arange(batch_size),
            labels=integers(NUM_CLASSES, batch_size),
            crops=integers(256, batch_size, size, size, 3, dtype=torch.uint8),
            offsets=integers(margin + 1, batch_size, 2),
            flips=integers(2, batch_size).bool(),
            color_shift=10 * torch.randn(batch_size, 3, generator=generator),
            divisor=1.0,
        )
        for step in range(NUM_BATCHES)
    ]


def _stored_size(crop_size: int) -> int:
    """The side of the squares that crops are taken from: 256 for 224, 36 for 32."""
    return crop_size * 8 // 7


def ours(job: Job, lever: str | None = None) -> Contestant:
    """The package's network, update rule, step and settings; or with one of `LEVERS` set otherwise."""
    runtime = RuntimeConfig(device=job.device, precision=job.precision, num_threads=job.threads)
    changes = {
        "conv1-direct": {"conv1": "direct"},
        "conv1-by-blocks": {"conv1": "space_to_depth"},
        "plain-torch": {"kernels": "plain"},
    }
    execution = configure(runtime.model_copy(update=changes.get(lever or "", {})))
    model = _our_network(get_architecture(job.model), execution, with_norms=lever != "no-norm")
    settings = f"{job.precision} activations, channels-last, conv1 {execution.conv1}"
    if execution.device.type == "cpu":
        settings += f", {native.describe()}"
    preprocessing = _our_preprocessing(model)
    if job.task == "inference":
        infer = _our_inference(model.eval(), preprocessing, execution)
        return Contestant(settings, infer, model.architecture, execution.device, model)
    config = OptimizerConfig(lr=_LR, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY)
    optimizer = build_optimizer(model.train(), config)
    train = _our_training(model, optimizer, preprocessing, execution)
    settings += f", {config.rule}"
    return Contestant(settings, train, model.architecture, execution.device, model, optimizer)


def _our_network(architecture: Architecture, execution: Execution, *, with_norms: bool) -> AlexNet:
    if not with_norms:
        norms = (ResponseNorm, SpatialNorm)
        layers = tuple(layer for layer in architecture.layers if not isinstance(layer, norms))
        architecture = replace(architecture, layers=layers)
    model = build_network(architecture, NUM_CLASSES, seed=_SEED)
    model.conv1_form = execution.conv1
    return model.to(device=execution.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _our_preprocessing(model: AlexNet) -> Preprocessing:
    stored_size = _stored_size(model.image_size)
    return Preprocessing(
        image_size=stored_size,
        crop_size=model.image_size,
        input_scale=model.architecture.input_scale,
        channel_order=model.architecture.channel_order,
        mean_mode="at_crop",
        mean_image=255 * torch.rand(stored_size, stored_size, 3, generator=torch.Generator().manual_seed(_SEED)),
    )


def _our_inference(model: AlexNet, preprocessing: Preprocessing, execution: Execution) -> Callable[[Batch], Tensor]:
    weights = list(model.parameters())

    def infer(batch: Batch) -> Tensor:
        with working_copies(weights, execution.dtype, keep=True), torch.inference_mode():
            images = preprocessing.normalize(batch.crops.to(execution.device), dtype=execution.dtype)
            return model(images).float()

    return infer


def _our_training(
    model: AlexNet, optimizer: MomentumSGD, preprocessing: Preprocessing, execution: Execution
) -> Callable[[Batch], Tensor]:
    device = execution.device
    dropout_layers = {
        name: (features, float(model.get_submodule(name).p))  # type: ignore[arg-type]
        for name, features in model.dropout_layers.items()
    }
    draw_masks = triton_masks.draw_masks if triton_masks.supports(device) else draw_dropout_masks
    step = GraphedStep() if device.type == "cuda" else train_step

    def train(batch: Batch) -> Tensor:
        batch_size = len(batch.labels)
        masks = draw_masks(dropout_layers, seed=_SEED, step=batch.step, batch_size=batch_size, device=device)
        result = step(
            model,
            optimizer,
            batch,
            preprocessing=preprocessing,
            dropout_masks=masks,
            micro_batch_size=batch_size,
            label_smoothing=0.0,
            device=device,
            dtype=execution.dtype,
        )
        return result.loss

    return train


def plain(job: Job, model_name: str, flags: Flags) -> Contestant:
    """A variant in plain torch, with flags."""
    device = torch.device(job.device)
    training = job.task == "train"
    architecture = get_architecture(model_name)
    network = textbook_network(architecture).to(device)
    network.train(training)
    if flags.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.backends.cudnn.benchmark = True
    optimizer = None
    if training:
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=_LR,
            momentum=_MOMENTUM,
            weight_decay=_WEIGHT_DECAY,
            fused=True if flags.fused else None,
        )
    model: nn.Module = torch.compile(network) if flags.compiled else network  # type: ignore[assignment]
    prepare = _plain_inputs(architecture, device, flags.channels_last)

    def logits_of(batch: Batch) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=flags.autocast):
            return model(prepare(batch.crops))

    def train(batch: Batch) -> Tensor:
        assert optimizer is not None
        optimizer.zero_grad()
        loss = F.cross_entropy(logits_of(batch).float(), batch.labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer(batch: Batch) -> Tensor:
        with torch.inference_mode():
            return logits_of(batch).float()

    settings = flags.describe(device, training)
    return Contestant(settings, train if training else infer, architecture, device, model, optimizer)


def textbook_network(architecture: Architecture) -> TextbookNetwork:
    """The plain network with the weights that ours begins with."""
    with torch.device("meta"):
        network = TextbookNetwork(architecture, NUM_CLASSES)
    network.take_weights(build_network(architecture, NUM_CLASSES, seed=_SEED).state_dict())
    return network


def onnxruntime(job: Job) -> Contestant:
    """The plain network in ONNX Runtime, float32."""
    from alexnet.benchmark.onnx import onnx_step

    architecture = get_architecture(job.model)
    prepare = _plain_inputs(architecture, torch.device("cpu"), channels_last=False)
    run = onnx_step(textbook_network(architecture).eval(), job, architecture.image_size)
    return Contestant(
        "float32, contiguous", lambda batch: run(prepare(batch.crops)), architecture, torch.device("cpu"), None
    )


def _plain_inputs(architecture: Architecture, device: torch.device, channels_last: bool) -> Callable[[Tensor], Tensor]:
    """(B, h, w, 3) uint8 -> (B, 3, h, w) float32, with a mean and a deviation a channel."""
    pixels = architecture.input_scale == "pixels"
    mean = torch.tensor((123.68, 116.78, 103.94), device=device).view(3, 1, 1)
    std = torch.tensor((1.0, 1.0, 1.0) if pixels else (58.4, 57.12, 57.38), device=device).view(3, 1, 1)

    def prepare(crops: Tensor) -> Tensor:
        images = crops.to(device).permute(0, 3, 1, 2)
        return (images if channels_last else images.contiguous()).float().sub_(mean).div_(std)

    return prepare

"""How strong the signal is in every layer of a network: what explains a loss that does not move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models import AlexNet


@dataclass(frozen=True)
class LayerSignal:
    """A layer's output on a batch, as numbers."""

    layer: str
    kind: str
    """Name of the module's class."""
    rms: float
    """Root mean square of the output."""
    spread: float
    """Root mean square of what differs between the images: each unit's deviation over the batch."""
    dead_share: float | None
    """Of a ReLU: the share of its maps (or units) that are zero on every image; None for other layers."""
    gradient_rms: float | None
    """Of the loss by the layer's weights; None where there are none, or they are frozen."""
    weight_rms: float | None

    @property
    def contrast(self) -> float:
        """The part of the output that tells images apart, from 0 (all images give the same) to 1."""
        return self.spread / self.rms if self.rms > 0 else 0.0

    def update(self, lr: float) -> float:
        """What a step at that rate does to the weights, in units of their size."""
        if self.gradient_rms is None or not self.weight_rms:
            return 0.0
        return lr * self.gradient_rms / self.weight_rms


@dataclass(frozen=True)
class Signals:
    """A batch's way through the network."""

    num_images: int
    input_rms: float
    layers: tuple[LayerSignal, ...]
    loss: float

    @property
    def logits(self) -> LayerSignal:
        """The last layer."""
        return self.layers[-1]

    def rows(self) -> list[str]:
        """One line a layer that has weights, and one a ReLU of which half is dead, for a person."""
        lines = []
        for row in self.layers:
            if row.dead_share is not None and row.dead_share < 0.5:
                continue
            parts = [f"{row.layer}: RMS {row.rms:.3g}, differs between images by {row.spread:.2g}"]
            if row.dead_share is not None:
                parts.append(f"dead {row.dead_share:.0%}")
            if row.gradient_rms is not None:
                parts.append(f"gradient {row.gradient_rms:.2g}, weights {row.weight_rms:.2g}")
            if len(parts) > 1:
                lines.append(", ".join(parts))
        return lines


def measure_signals(model: AlexNet, images: Tensor, labels: Tensor) -> Signals:
    """Run images (N, 3, H, W) through the network layer by layer, and the loss's gradient back.

    Everything is measured and nothing is changed: no `.grad`, no weight, no generator. Dropout is off and batch norms
    use the batch (their running statistics mean nothing before training), both as before afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    # What a batch norm in training mode overwrites.
    running = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    try:
        with torch.enable_grad():
            outputs = model.activations(images)
            loss = F.cross_entropy(list(outputs.values())[-1].float(), labels)
            weights = {
                name: layer.get_parameter("weight")
                for name, layer in model.named_children()
                if "weight" in dict(layer.named_parameters()) and layer.get_parameter("weight").requires_grad
            }
            gradients = torch.autograd.grad(loss, list(weights.values())) if weights else ()
            gradients = dict(zip(weights, gradients, strict=True))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in model.named_buffers():
            buffer.copy_(running[name])
    with torch.no_grad():
        rows = [_row(model, name, output, gradients.get(name)) for name, output in outputs.items()]
    return Signals(len(images), root_mean_square(images), tuple(rows), float(loss.detach()))


def _row(model: AlexNet, name: str, output: Tensor, gradient: Tensor | None) -> LayerSignal:
    layer = model.get_submodule(name)
    weight_rms = None if gradient is None else root_mean_square(layer.get_parameter("weight"))
    values = output.detach().float()
    dead = None
    if isinstance(layer, nn.ReLU):
        per_map = values.transpose(0, 1).flatten(1)
        dead = float((per_map.abs().amax(dim=1) == 0).float().mean())
    return LayerSignal(
        name,
        type(layer).__name__,
        root_mean_square(values),
        float(values.var(dim=0, correction=0).mean().sqrt()),
        dead,
        None if gradient is None else root_mean_square(gradient),
        weight_rms,
    )


def root_mean_square(values: Tensor) -> float:
    """Of all values; also where their squares would leave the range of float32."""
    values = values.detach().float()
    largest = values.abs().max()
    if not 0 < largest < math.inf:  # all zero, or something that is not finite
        return float(largest)
    return float(largest * (values / largest).square().mean().sqrt())


# What the numbers below separate, measured at initialisation on 16 images of digits and of drawn shapes: the spread of
# the last hidden layer over its RMS is 0.10 for as_run, 0.06 for caffe, 0.2 to 0.5 for torch's defaults, batch norm and
# the CIFAR nets; 0.007 for the paper's 0.01 everywhere and 0.0035 for as_run fed with unit-normalised images.
LEAST_CONTRAST = 0.02
DEAD_SHARE = 0.95
LARGE_LOGITS = 50.0
LEAST_UPDATE = 3e-6
"""The first step's change over a weight's size; momentum makes ten of it, so 30,000 steps would double the weight."""
SMALL_SPREAD = 0.05
"""Of the logits over images; 0.04 for as_run at its beginning, around 1 and more once something is learnt."""
PIXEL_INPUT_RMS = 5.0
UNIT_INPUT_RMS = 15.0


@dataclass(frozen=True)
class Cause:
    """Why a network does not learn: an identifier, a sentence, and what to do."""

    id: str
    what: str
    remedy: str


def find_cause(signals: Signals, input_scale: str, lr: float) -> Cause | None:
    """The likeliest reason in the signals why a loss stays where guessing puts it; None where they look sound."""
    broken = next((row for row in signals.layers if not math.isfinite(row.rms)), None)
    if broken is not None:
        return Cause(
            "activations-not-finite",
            f"the outputs of {broken.layer} are not finite",
            "lower optimizer.lr or add schedule.warmup_epochs, and start again: these weights are lost",
        )
    return _input_cause(signals, input_scale) or _activation_cause(signals) or _rate_cause(signals, lr)


def slow_start(signals: Signals) -> Cause | None:
    """A weaker reason, for a loss that has been flat already: nothing is wrong, but the logits have not come apart."""
    if signals.num_images < 2 or signals.logits.spread >= SMALL_SPREAD:
        return None
    return Cause(
        "slow-start",
        "the signal looks sound, but the logits hardly differ between images yet (by "
        f"{signals.logits.spread:.2g}), as after small initial values",
        "wait (Caffe's initial values take their time), or start again with model.initialization=as_run or a higher "
        "optimizer.lr",
    )


def _input_cause(signals: Signals, input_scale: str) -> Cause | None:
    rms = signals.input_rms
    if input_scale == "pixels" and rms < PIXEL_INPUT_RMS:
        return Cause(
            "input-scale",
            f"the inputs have an RMS of {rms:.2g}, but this network is meant for pixels of 0-255 minus their mean (RMS "
            "about 60): after conv1 little but the biases is left, and the response norms do nothing",
            "feed 0-255 minus the mean, not images divided by 255 or normalised by channel; and look whether the "
            "images are all but uniform",
        )
    if input_scale == "unit" and rms > UNIT_INPUT_RMS:
        return Cause(
            "input-scale",
            f"the inputs have an RMS of {rms:.2g}, but this network is meant for normalised images (RMS about 1)",
            "divide by 255, subtract the channels' means and divide by their deviations",
        )
    return None


def _activation_cause(signals: Signals) -> Cause | None:
    dead = [row for row in signals.layers if row.dead_share is not None and row.dead_share >= DEAD_SHARE]
    if dead:
        return Cause(
            "dead-relu",
            f"{dead[0].dead_share:.0%} of {dead[0].layer} is zero on every image: no gradient passes, and it will not "
            "come back to life by itself",
            "start again with a lower optimizer.lr, or with schedule.warmup_epochs=1",
        )
    if signals.logits.rms > LARGE_LOGITS:
        return Cause(
            "large-logits",
            f"the logits have an RMS of {signals.logits.rms:.3g}; around 1 is usual",
            "start again with a lower optimizer.lr, or with schedule.warmup_epochs=1",
        )
    hidden = [row for row in signals.layers[:-1] if row.gradient_rms is not None]
    if signals.num_images < 2 or not hidden or hidden[-1].contrast >= LEAST_CONTRAST:
        return None
    chain = ", ".join(f"{row.layer} {row.contrast:.2g}" for row in hidden)
    return Cause(
        "vanishing-signal",
        "the images all but vanish on their way through the network (what differs between images, over the whole "
        f"output: {chain}); what is left at the end is the biases",
        "use an initialization that was run (model.initialization=as_run; for other variants torch_default), or wait: "
        "such a net may leave its plateau after thousands of steps",
    )


def _rate_cause(signals: Signals, lr: float) -> Cause | None:
    updates = {row.layer: row.update(lr) for row in signals.layers if row.gradient_rms is not None}
    layer = max(updates, key=updates.__getitem__, default=None)
    if layer is None or updates[layer] >= LEAST_UPDATE:
        return None
    return Cause(
        "lr-too-low",
        f"the weights hardly move: a step changes none by more than {updates[layer]:.1g} of its size ({layer}) at a "
        f"learning rate of {lr:g}",
        "raise optimizer.lr (0.01 for 128 images a batch, in proportion to the batch), and look whether the schedule "
        "lowered or froze it too early",
    )

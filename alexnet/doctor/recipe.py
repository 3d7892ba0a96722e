"""What is wrong with a recipe: alone, and for a data set."""

from __future__ import annotations

import math
from collections.abc import Iterator

from alexnet.config import LayerScheduleConfig, Recipe
from alexnet.doctor.data import DataFacts
from alexnet.doctor.findings import Finding, finding
from alexnet.doctor.initial import frozen_at_random
from alexnet.errors import UserError
from alexnet.models import AlexNet
from alexnet.runtime.device import choose_execution, has_fast_bfloat16
from alexnet.training.freezing import is_frozen_from_the_start
from alexnet.training.memory import available_bytes, step_memory
from alexnet.training.network import build_recipe_network, unknown_layers

_LR_TOLERANCE = 3.0
"""Rates within this factor of the range from the linear to the square-root rule are not remarked on."""
_LARGE_BATCH = 1024
_MIN_STEPS = 100
_DETAIL_SHARE = 0.5
_COLOR_NOISE = (0.005, 0.5)


def inspect_recipe(
    name: str, recipe: Recipe, num_classes: int | None = None, *, to_run_here: bool = True
) -> tuple[AlexNet | None, list[Finding]]:
    """Findings about a recipe by itself, and the network it describes; None where it cannot be built.

    num_classes: of the data, where there is some; 1000 otherwise. to_run_here: whether this machine has to be fit for
    it; not for a run that is finished.
    """
    try:
        model = build_recipe_network(recipe, recipe.model.num_classes or num_classes or 1000)
    except UserError as error:
        return None, [finding("recipe-refused", name, str(error))]
    findings = [
        *_sizes(name, recipe, model),
        *_layers(name, recipe, model),
        *_rate(name, recipe),
        *_schedule(name, recipe),
        *_colors(name, recipe, model),
        *(_machine(name, recipe, model) if to_run_here else ()),
    ]
    if model.architecture.initialization == "paper":
        what = "Weights begin as N(0, 0.01) in every layer, as the text says; 0.03 in conv3 to conv5 was run."
        findings.append(finding("literal-initialization", name, what))
    micro = recipe.train.micro_batch_size
    if model.architecture.has_batch_norm and isinstance(micro, int) and micro < recipe.train.batch_size:
        what = f"{recipe.model.name} normalises each micro-batch of {micro} by itself, not the batch."
        findings.append(finding("micro-batch-norm", name, what))
    return model, findings


def _sizes(name: str, recipe: Recipe, model: AlexNet) -> list[Finding]:
    square, crop = recipe.data.image_size, model.image_size
    if square < crop:
        what = f"data.image_size = {square} is smaller than the input of {recipe.model.name}, {crop} pixels."
        return [finding("image-smaller-than-crop", name, what)]
    if recipe.augment.crop != "random_resized" and crop < _DETAIL_SHARE * square:
        share = f"{(crop / square) ** 2:.0%} of the image"
        what = f"{recipe.model.name} sees crops of {crop} pixels of squares of {square}: {share}."
        return [finding("crop-much-smaller", name, what)]
    if recipe.augment.crop == "random" and square == crop:
        return [finding("no-room-for-crops", name, f"Squares and crops both have {crop} pixels.")]
    return []


def _layers(name: str, recipe: Recipe, model: AlexNet) -> list[Finding]:
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key, _ in model.named_parameters()))
    findings = [
        finding("unknown-layer", name, f"{key}: {recipe.model.name} {what}.", [f"its layers: {', '.join(known)}"])
        for key, what, known in unknown_layers(recipe, model)
    ]
    frozen = [layer for layer in layers if is_frozen_from_the_start(recipe, layer)]
    if len(frozen) == len(layers):
        what = "The learning rate of every layer is 0 from the first step."
        findings.append(finding("nothing-learns", name, what))
    elif recipe.model.init is None:
        findings += frozen_at_random(name, frozen)
    return findings


def _rate(name: str, recipe: Recipe) -> list[Finding]:
    """The rate against the reference: 0.01 at 128 and 0.02 at 256 (paper 5 and the 2012 log); 0.001 for CIFAR nets.

    Under LARS it is a factor of rates that follow from the weights, and compares with nothing.
    """
    batch = recipe.train.batch_size
    reference = 0.001 if recipe.model.name.startswith("cifar_") else 0.01
    linear, root = reference * batch / 128, reference * math.sqrt(batch / 128)
    # With another momentum a step of the same rate goes another distance.
    rate = recipe.optimizer.lr * (1 - 0.9) / (1 - recipe.optimizer.momentum)
    low, high = min(linear, root) / _LR_TOLERANCE, max(linear, root) * _LR_TOLERANCE
    findings = []
    evidence = [
        f"linear rule: {linear:.3g} for {batch} images, from {reference:g} at 128 ({2 * reference:g} at 256)",
        f"square-root rule: {root:.3g}",
    ]
    momentum = "" if recipe.optimizer.momentum == 0.9 else f", with momentum {recipe.optimizer.momentum:g}"
    what = f"optimizer.lr = {recipe.optimizer.lr:g} at batch {batch}{momentum} is {{}} the reference, {linear:.3g}."
    # With a trained network to begin with, it is what has been learnt that a high rate would spoil.
    share = recipe.optimizer.copied_lr_factor if recipe.model.init is not None else 1.0
    if recipe.optimizer.rule == "lars":
        pass
    elif rate * share > high:
        findings.append(finding("lr-too-high", name, what.format(f"{rate / linear:.3g} times"), evidence))
    elif rate < low:
        findings.append(finding("lr-too-low", name, what.format(f"1/{linear / rate:.3g} of"), evidence))
    if batch >= _LARGE_BATCH and recipe.schedule.warmup_epochs == 0:
        what = f"The batch has {batch} images and the rate no warm-up."
        findings.append(finding("large-batch", name, what, ["1024 at an unscaled rate was not good in 2012 either"]))
    return findings


def _schedules(recipe: Recipe) -> Iterator[tuple[str, LayerScheduleConfig]]:
    yield "schedule", recipe.schedule
    if recipe.schedule.bias is not None:
        yield "schedule.bias", recipe.schedule.bias
        for layer, schedule in recipe.schedule.bias.layers.items():
            yield f"schedule.bias.layers.{layer}", schedule
    for layer, schedule in recipe.schedule.layers.items():
        yield f"schedule.layers.{layer}", schedule


def _schedule(name: str, recipe: Recipe) -> list[Finding]:
    train, schedule = recipe.train, recipe.schedule
    late = [
        f"{prefix}.milestones: {at:g}"
        for prefix, item in _schedules(recipe)
        for at in item.milestones
        if at >= train.epochs
    ]
    late += [
        f"{prefix}.freeze_epoch: {item.freeze_epoch:g}"
        for prefix, item in _schedules(recipe)
        if item.freeze_epoch is not None and item.freeze_epoch >= train.epochs
    ]
    until = recipe.augment.color_noise_until_epoch
    if until is not None and until >= train.epochs:
        late.append(f"augment.color_noise_until_epoch: {until:g}")
    if schedule.warmup_epochs >= train.epochs:
        late.append(f"schedule.warmup_epochs: {schedule.warmup_epochs:g} (the whole run is warm-up)")
    findings = []
    # A run that min_steps makes longer has more epochs than it says, by how much the data decides.
    if late and train.min_steps is None:
        what = f"The run ends at epoch {train.epochs:g}, before what is set for later."
        findings.append(finding("after-the-end", name, what, late))
    if schedule.name == "plateau":
        findings += _plateau(name, recipe)
    return findings


def _plateau(name: str, recipe: Recipe) -> list[Finding]:
    waits, train = recipe.schedule.patience_epochs, recipe.train
    evaluations = train.epochs / train.evaluate_every_epochs
    findings = []
    if waits >= evaluations and train.min_steps is None:
        what = f"The rate drops after {waits} evaluations without a better one; there are {evaluations:g}."
        findings.append(finding("patience-too-long", name, what))
    stops = train.early_stop_evaluations
    if stops is not None and stops <= waits:
        what = f"The run stops after {stops} evaluations without a better one, the rate drops after {waits}."
        findings.append(finding("stops-before-drop", name, what))
    return findings


def _colors(name: str, recipe: Recipe, model: AlexNet) -> list[Finding]:
    findings = []
    noise, (low, high) = recipe.augment.color_noise, _COLOR_NOISE
    if 0 < noise < low or noise > high:
        off = "all but off: as if pixels were 0 to 1" if noise < low else "more noise than colour"
        what = f"augment.color_noise = {noise:g} is {off}."
        findings.append(finding("color-noise-scale", name, what))
    if recipe.augment.color_noise_divisor != 1 and model.architecture.input_scale == "unit":
        divisor = recipe.augment.color_noise_divisor
        what = f"augment.color_noise_divisor = {divisor:g} has no effect in {recipe.model.name}."
        findings.append(finding("divisor-ignored", name, what))
    return findings


def _machine(name: str, recipe: Recipe, model: AlexNet) -> list[Finding]:
    try:
        execution = choose_execution(recipe.runtime)
    except UserError as error:
        return [finding("device-missing", name, str(error))]
    findings = []
    if recipe.runtime.precision == "bfloat16" and not has_fast_bfloat16(execution.device):
        what = f"runtime.precision = bfloat16, which {execution.device.type} does not do fast on this machine."
        findings.append(finding("slow-bfloat16", name, what))
    memory, available = step_memory(recipe, model, execution.dtype), available_bytes(execution.device)
    if memory.total > available and recipe.train.micro_batch_size != "auto":
        fits = memory.largest_batch(available)
        what = (
            f"A step with {memory.images} images at once needs about {memory.total / 2**30:.1f} GB; "
            f"{available / 2**30:.1f} GB are free."
        )
        evidence = [
            f"{memory.weights / 2**20:,.0f} MB for weights, velocities and gradients",
            f"{memory.per_image / 2**20:.1f} MB for each image's activations",
        ]
        if not fits:
            remedy = "Free some memory, or choose a smaller network: not even one image at a time fits."
        elif model.architecture.has_batch_norm:
            remedy = f"Set train.micro_batch_size={fits}: batch norm then normalizes each part of a batch by itself."
        else:
            remedy = f"Set train.micro_batch_size={fits}: the result is the same to rounding."
        findings.append(finding("batch-too-large", name, what, evidence, remedy=remedy))
    return findings


def inspect_fit(name: str, recipe: Recipe, facts: DataFacts) -> list[Finding]:
    """Whether a recipe fits a data set, from numbers alone."""
    findings = []
    num_classes = len(facts.classes)
    if recipe.model.num_classes is not None and num_classes and recipe.model.num_classes != num_classes:
        what = f"model.num_classes = {recipe.model.num_classes}; {facts.spec} has {num_classes} classes."
        findings.append(finding("num-classes-mismatch", name, what))
    if facts.image_size is not None and facts.image_size != recipe.data.image_size:
        wanted = recipe.data.image_size
        what = f"data.image_size = {wanted}; the squares of {facts.spec} have {facts.image_size} pixels."
        findings.append(finding("prepared-size", name, what))
    if not facts.num_train:
        return findings
    images = min(facts.num_train, recipe.data.max_train_images or facts.num_train)
    batch, train = recipe.train.batch_size, recipe.train
    steps = math.ceil(max(train.epochs * images / batch, train.min_steps or 1))
    if batch > images:
        what = f"train.batch_size = {batch}, and there are {images} training images."
        findings.append(finding("batch-larger-than-data", name, what))
    if steps < _MIN_STEPS:
        what = f"{train.epochs:g} epochs of {images} images are {steps} steps of {batch}."
        findings.append(finding("too-few-steps", name, what))
    horizon = 1 / (1 - (train.ema_decay or 0))
    if train.ema_decay is not None and horizon > steps / 3:
        what = f"train.ema_decay = {train.ema_decay:g} averages about {horizon:,.0f} of {steps:,} steps."
        findings.append(finding("ema-too-long", name, what))
    return findings

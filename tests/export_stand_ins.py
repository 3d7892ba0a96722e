"""Small networks with weights large enough that every layer matters, as checkpoints."""

from dataclasses import replace

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.models import ARCHITECTURES, Architecture, build_network
from alexnet.models.architecture import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Convolution,
    Dropout,
    Linear,
    Local,
    MaxPool,
    ReLU,
    ResponseNorm,
    SiLU,
    SpatialNorm,
    Tanh,
)
from alexnet.training.checkpoint import Checkpoint

EVERYTHING = Architecture(
    name="everything",
    summary="Every kind of layer and every option of one.",
    source="none",
    image_size=35,
    pad_right_bottom=3,
    input_scale="unit",
    channel_order="bgr",
    initialization="torch_default",
    layers=(
        Convolution("conv1", channels=8, kernel=5, stride=2, bias=False),
        BatchNorm("bn1", eps=1e-4, momentum=0.1),
        ReLU("relu1"),
        ResponseNorm("norm1", size=5, alpha=0.05, beta=0.75, k=2.0, alpha_convention="sum", towers=2),
        MaxPool("pool1", size=3, stride=2, ceil_mode=True),
        Convolution("conv2", channels=12, kernel=3, padding=1, groups=2),
        ResponseNorm("norm2", size=4, alpha=0.2, beta=0.5, k=1.0, alpha_convention="mean"),
        SpatialNorm("cnorm2", size=3, alpha=0.3, beta=0.75, k=1.0, alpha_convention="mean"),
        Tanh("tanh2"),
        AveragePool("pool2", size=3, stride=2, ceil_mode=True),
        Local("local3", channels=6, kernel=3, padding=1),
        SiLU("silu3"),
        AdaptiveAveragePool("avgpool", size=3),
        Dropout("drop3", rate=0.5, scaling="inverted"),
        Linear("fc4", features=10, groups=2),
        ReLU("relu4"),
        Dropout("drop4", rate=0.5, scaling="original"),
        Linear("fc5", features=None),
    ),
)


def small_checkpoint(architecture, *, image_size=None, mean_mode="center_crop", num_classes=7):
    """A checkpoint of a record or of a variant; the variant with few units, and the smallest images that will do."""
    if isinstance(architecture, str):
        variant = ARCHITECTURES[architecture]
        layers = [
            replace(layer, features=16 * layer.groups) if isinstance(layer, Linear) and layer.features else layer
            for layer in variant.layers
        ]
        architecture = replace(variant, layers=tuple(layers))
    size = image_size or (67 if architecture.image_size > 200 else architecture.image_size)
    model = build_network(architecture, num_classes, image_size=size)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.children():
            weight = getattr(layer, "weight", None)
            if weight is not None and weight.ndim > 1:
                inputs = weight.shape[-1] if weight.ndim == 3 else weight[0].numel()
                weight.normal_(generator=generator).mul_((2 / inputs) ** 0.5)
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
    stored = size + 5
    mean = torch.rand(stored, stored, 3, generator=generator) * 30 + 110
    return Checkpoint(
        architecture=architecture,
        num_classes=num_classes,
        image_size=size,
        classes=tuple(f"n{number:02d}" for number in range(num_classes)),
        class_names=tuple(f"thing {number}" for number in range(num_classes)),
        preprocessing=Preprocessing(
            stored, size, architecture.input_scale, architecture.channel_order, mean_mode, mean
        ),
        recipe={"seed": 3, "runtime": {"precision": "float32"}},
        data="photos",
        step=7,
        epoch=1.5,
        metrics={"top1_error": 0.25, "views": "ten_crop", "num_images": 8},
        model_state=model.state_dict(),
        training_state=None,
        environment={},
    )

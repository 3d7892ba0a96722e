"""The author's nets for CIFAR-10 (cuda-convnet, example-layers), as records.

Their pools use ceil. The average pools of the three nets of 2011 (26 %, 19 % and 18 %) divide every window by 9, also
at the edge, as the code of that date did (the change to the part inside the map came on 2012-07-17).
"""

from __future__ import annotations

from dataclasses import replace

from alexnet.models.architecture import (
    Architecture,
    AveragePool,
    Convolution,
    Linear,
    Local,
    MaxPool,
    ReLU,
    ResponseNorm,
    SpatialNorm,
)
from alexnet.models.changes import changed_layers


def _average_pool(name: str) -> AveragePool:
    return AveragePool(name, size=3, stride=2, ceil_mode=True, divisor="window")


CIFAR_QUICK = Architecture(
    name="cifar_quick",
    summary="The 80-second net for CIFAR-10, 26 % error.",
    source="cuda-convnet example-layers/layers-80sec.cfg",
    image_size=32,
    pad_right_bottom=0,
    input_scale="pixels",
    channel_order="rgb",
    initialization="cifar_quick",
    layers=(
        Convolution("conv1", 32, kernel=5, padding=2),
        MaxPool("pool1", size=3, stride=2, ceil_mode=True),
        ReLU("relu1"),
        Convolution("conv2", 32, kernel=5, padding=2),
        ReLU("relu2"),
        _average_pool("pool2"),
        Convolution("conv3", 64, kernel=5, padding=2),
        ReLU("relu3"),
        _average_pool("pool3"),
        Linear("fc64", 64),
        ReLU("relu64"),
        Linear("fc10", None),
    ),
)

CIFAR_19PCT = replace(
    CIFAR_QUICK,
    name="cifar_19pct",
    summary="The 20-minute net for CIFAR-10, 19 % error: cifar_quick with one fully-connected layer.",
    source="cuda-convnet example-layers/layers-19pct.cfg",
    initialization="cifar",
    layers=changed_layers(CIFAR_QUICK.layers, fc64=None, relu64=None),
)


def _cifar_spatial_norm(name: str) -> SpatialNorm:
    return SpatialNorm(name, size=3, alpha=5e-5, beta=0.75, k=1.0, alpha_convention="mean")


CIFAR_18PCT = replace(
    CIFAR_19PCT,
    name="cifar_18pct",
    summary="cifar_19pct with normalisation within each map after the first two pools, 18 % error on CIFAR-10.",
    source="cuda-convnet example-layers/layers-18pct.cfg",
    layers=changed_layers(
        CIFAR_19PCT.layers,
        relu1=(ReLU("relu1"), _cifar_spatial_norm("norm1")),
        pool2=(_average_pool("pool2"), _cifar_spatial_norm("norm2")),
    ),
)

CIFAR_13PCT = Architecture(
    name="cifar_13pct",
    summary="Two convolutional and two local layers without normalisation: 13 % error on CIFAR-10 (paper 3.3).",
    source="cuda-convnet example-layers/layers-conv-local-13pct.cfg",
    image_size=24,
    pad_right_bottom=0,
    input_scale="pixels",
    channel_order="rgb",
    initialization="cifar_local",
    layers=(
        Convolution("conv1", 64, kernel=5, padding=2),
        ReLU("relu1"),
        MaxPool("pool1", size=3, stride=2, ceil_mode=True),
        Convolution("conv2", 64, kernel=5, padding=2),
        ReLU("relu2"),
        MaxPool("pool2", size=3, stride=2, ceil_mode=True),
        Local("local3", 32, kernel=3, padding=1),
        ReLU("relu3"),
        Local("local4", 32, kernel=3, padding=1),
        ReLU("relu4"),
        Linear("fc10", None),
    ),
)


def _cifar_norm(name: str) -> ResponseNorm:
    return ResponseNorm(name, size=9, alpha=1e-3, beta=0.75, k=1.0, alpha_convention="mean")


CIFAR_11PCT = replace(
    CIFAR_13PCT,
    name="cifar_11pct",
    summary="cifar_13pct with response normalisation and a local3 of twice the width: 11 % error on CIFAR-10.",
    source="cuda-convnet example-layers/layers-conv-local-11pct.cfg",
    layers=changed_layers(
        CIFAR_13PCT.layers,
        pool1=(MaxPool("pool1", size=3, stride=2, ceil_mode=True), _cifar_norm("norm1")),
        relu2=(ReLU("relu2"), _cifar_norm("norm2")),
        local3=Local("local3", 64, kernel=3, padding=1),
    ),
)

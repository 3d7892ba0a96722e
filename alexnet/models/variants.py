"""The variants, as records. `as_run` is written out; the others say in what they differ."""

from __future__ import annotations

import difflib
from dataclasses import replace

from alexnet.errors import UserError
from alexnet.models.architecture import (
    AdaptiveAveragePool,
    Architecture,
    BatchNorm,
    Convolution,
    Dropout,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    SpatialNorm,
)
from alexnet.models.changes import changed_layers
from alexnet.models.cifar import CIFAR_11PCT, CIFAR_13PCT, CIFAR_18PCT, CIFAR_19PCT, CIFAR_QUICK

AS_RUN = Architecture(
    name="as_run",
    summary="The network that produced the paper's numbers, as its configuration file has it.",
    source="layers/layers-145.cfg of the 2012 source",
    image_size=224,
    # The source's conv1 gives 1 + ceil((224 - 11) / 4) = 55 outputs, its last window reaching 3 px over the right and
    # bottom edge, where pixels count as zero (S layer.py:1004). With stride - 1 zero pixels more, floor is ceil at any
    # image size.
    pad_right_bottom=3,
    input_scale="pixels",
    channel_order="rgb",
    initialization="as_run",
    layers=(
        # Paper 3.5: five convolutions. The two halves of the kernels lived on two GPUs ("towers", paper 3.2): a group
        # is what one GPU held, and conv3 is the only convolution that sees both.
        Convolution("conv1", 96, kernel=11, stride=4),
        # Paper 3.3, with the window inside a tower, alpha divided by the window, and before the ReLU (S layers-145).
        ResponseNorm("norm1", size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_convention="mean", towers=2),
        # Paper 3.4: overlapping pooling.
        MaxPool("pool1", size=3, stride=2, ceil_mode=True),
        ReLU("relu1"),
        Convolution("conv2", 256, kernel=5, padding=2, groups=2),
        ReLU("relu2"),
        ResponseNorm("norm2", size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_convention="mean", towers=2),
        # Not in the paper: a second normalisation, within each map (S layers-145: cnorm2).
        SpatialNorm("cnorm2", size=5, alpha=1e-3, beta=0.75, k=1.0, alpha_convention="mean"),
        MaxPool("pool2", size=3, stride=2, ceil_mode=True),
        Convolution("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Convolution("conv4", 384, kernel=3, padding=1, groups=2),
        ReLU("relu4"),
        Convolution("conv5", 256, kernel=3, padding=1, groups=2),
        # The source has the ReLU after this pool; max and ReLU commute, so the order changes nothing.
        ReLU("relu5"),
        MaxPool("pool5", size=3, stride=2, ceil_mode=True),
        # Fully connected: every unit sees both towers (paper 3.5). Dropout on the outputs of the first two (paper 4.2).
        Linear("fc6", 4096),
        ReLU("relu6"),
        Dropout("drop6", rate=0.5, scaling="original"),
        Linear("fc7", 4096),
        ReLU("relu7"),
        Dropout("drop7", rate=0.5, scaling="original"),
        Linear("fc8", None),
    ),
)


def _ordered(layers: tuple[Layer, ...], *names: str) -> tuple[Layer, ...]:
    """The layers with the named ones, which are neighbours, in the given order."""
    by_name = {layer.name: layer for layer in layers}
    rest = iter(names)
    return tuple(by_name[next(rest)] if layer.name in names else layer for layer in layers)


def _paper_norm(name: str) -> ResponseNorm:
    return ResponseNorm(name, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_convention="sum", towers=2)


PAPER = replace(
    AS_RUN,
    name="paper",
    summary="The text of the paper, literally: alpha on the sum of squares, ReLU first, no spatial norm, std 0.01.",
    source="Krizhevsky, Sutskever, Hinton, NIPS 2012, sections 3.1-3.5, 4.2 and 5",
    initialization="paper",
    layers=changed_layers(
        _ordered(AS_RUN.layers, "relu1", "norm1", "pool1"),
        norm1=_paper_norm("norm1"),
        norm2=_paper_norm("norm2"),
        cnorm2=None,
    ),
)


def _one_tower_norm(name: str) -> ResponseNorm:
    return ResponseNorm(name, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_convention="mean")


ONE_TOWER = replace(
    AS_RUN,
    name="one_tower",
    summary="as_run (its order and norms) without the two towers: every convolution and norm sees all maps.",
    source="layers/layers-145.cfg of the 2012 source with groups of 1; not a network of the paper",
    layers=changed_layers(
        AS_RUN.layers,
        norm1=_one_tower_norm("norm1"),
        conv2=Convolution("conv2", 256, kernel=5, padding=2),
        norm2=_one_tower_norm("norm2"),
        conv4=Convolution("conv4", 384, kernel=3, padding=1),
        conv5=Convolution("conv5", 256, kernel=3, padding=1),
    ),
)

HALF = replace(
    ONE_TOWER,
    name="half",
    summary="The one-GPU net of paper 3.2: half the kernels in conv1-conv4, all of conv5's, no towers; else as_run.",
    source="layers/layers-145-half.cfg of the 2012 source",
    layers=changed_layers(
        ONE_TOWER.layers,
        conv1=Convolution("conv1", 48, kernel=11, stride=4),
        conv2=Convolution("conv2", 128, kernel=5, padding=2),
        conv3=Convolution("conv3", 192, kernel=3, padding=1),
        conv4=Convolution("conv4", 192, kernel=3, padding=1),
    ),
)

NO_COMMUNICATION = replace(
    AS_RUN,
    name="no_communication",
    summary="Two towers that meet in fc8 only, with 320 kernels in conv2 and 8192 units in fc6; else as_run.",
    source="layers/layers-150.cfg of the 2012 source",
    layers=changed_layers(
        AS_RUN.layers,
        # Each tower has 160 kernels in conv2, and 4096 and 2048 units in fc6 and fc7 (fc4096a, fc2048ba), which see the
        # same tower alone. fc8 sees both.
        conv2=Convolution("conv2", 320, kernel=5, padding=2, groups=2),
        conv3=Convolution("conv3", 384, kernel=3, padding=1, groups=2),
        fc6=Linear("fc6", 8192, groups=2),
        fc7=Linear("fc7", 4096, groups=2),
    ),
)

CONV6 = replace(
    AS_RUN,
    name="conv6",
    summary="as_run with a sixth convolution after pool5: the pre-trained nets marked * in the paper's Table 2.",
    source="layers/layers-146-2012-2011.cfg of the 2012 source",
    layers=changed_layers(
        AS_RUN.layers,
        pool5=(
            MaxPool("pool5", size=3, stride=2, ceil_mode=True),
            # Each tower sees both: one group.
            Convolution("conv6", 256, kernel=3, padding=1),
            ReLU("relu_conv6"),
        ),
    ),
)


def _caffe_norm(name: str) -> ResponseNorm:
    return ResponseNorm(name, size=5, alpha=1e-4, beta=0.75, k=1.0, alpha_convention="mean")


def _inverted(name: str) -> Dropout:
    return Dropout(name, rate=0.5, scaling="inverted")


CAFFE = replace(
    PAPER,
    name="caffe",
    summary="Caffe's bvlc_alexnet: 227 px BGR crops, k = 1, norms across both towers, biases of 0.1.",
    source="BVLC/caffe models/bvlc_alexnet/train_val.prototxt",
    image_size=227,
    pad_right_bottom=0,
    channel_order="bgr",
    initialization="caffe",
    layers=changed_layers(
        PAPER.layers,
        norm1=_caffe_norm("norm1"),
        norm2=_caffe_norm("norm2"),
        drop6=_inverted("drop6"),
        drop7=_inverted("drop7"),
    ),
)

CAFFENET = replace(
    CAFFE,
    name="caffenet",
    summary="Caffe's bvlc_reference_caffenet: caffe with pooling before normalisation, and biases of 1.",
    source="BVLC/caffe models/bvlc_reference_caffenet/train_val.prototxt",
    initialization="caffenet",
    layers=_ordered(
        _ordered(CAFFE.layers, "relu1", "pool1", "norm1"),
        "relu2",
        "pool2",
        "norm2",
    ),
)


def _normalized(convolution: Convolution) -> tuple[Convolution, BatchNorm]:
    """A convolution of `bn` and the batch norm after it, with the constants of its prototxt."""
    # The source divides its inputs by 256 (scale: 0.00390625) and has eps 1e-4. Here inputs are not divided. The first
    # batch norm takes the factor out again, but for eps: with 256**2 times the eps, outputs and gradients are the same.
    eps = 1e-4 * 256**2 if convolution.name == "conv1" else 1e-4
    # The norm's own shift makes a bias redundant; the source keeps that of conv5 all the same.
    has_bias = convolution.name == "conv5"
    # Caffe's moving_average_fraction of 0.9 is torch's momentum of 0.1.
    return replace(convolution, bias=has_bias), BatchNorm(f"bn{convolution.name[-1]}", eps=eps, momentum=0.1)


BN = replace(
    CAFFE,
    name="bn",
    summary="caffe with batch norm between each convolution and its ReLU, instead of response normalization.",
    source="borisgin/nvcaffe-0.16 models/alexnet_bn/train_val.prototxt at 8896d33",
    # Weights and biases begin as in caffe: N(0, 0.01), in fc6 and fc7 N(0, 0.005); biases of 0.1 in conv5, fc6 and fc7.
    initialization="caffe",
    layers=tuple(
        part
        for layer in CAFFE.layers
        if not isinstance(layer, ResponseNorm)
        for part in (_normalized(layer) if isinstance(layer, Convolution) else (layer,))
    ),
)

TORCHVISION = Architecture(
    name="torchvision",
    summary="torchvision's AlexNet (One weird trick, 2014): other widths, no norms, dropout before fc6 and fc7.",
    source="pytorch/vision torchvision/models/alexnet.py",
    image_size=224,
    pad_right_bottom=0,
    input_scale="unit",
    channel_order="rgb",
    initialization="torch_default",
    layers=(
        Convolution("conv1", 64, kernel=11, stride=4, padding=2),
        ReLU("relu1"),
        MaxPool("pool1", size=3, stride=2, ceil_mode=False),
        Convolution("conv2", 192, kernel=5, padding=2),
        ReLU("relu2"),
        MaxPool("pool2", size=3, stride=2, ceil_mode=False),
        Convolution("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Convolution("conv4", 256, kernel=3, padding=1),
        ReLU("relu4"),
        Convolution("conv5", 256, kernel=3, padding=1),
        ReLU("relu5"),
        MaxPool("pool5", size=3, stride=2, ceil_mode=False),
        AdaptiveAveragePool("avgpool", size=6),
        # A dropout layer has the number of the layer whose output it drops: these are before fc6 and before fc7.
        _inverted("drop5"),
        Linear("fc6", 4096),
        ReLU("relu6"),
        _inverted("drop6"),
        Linear("fc7", 4096),
        ReLU("relu7"),
        Linear("fc8", None),
    ),
)

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        AS_RUN,
        PAPER,
        ONE_TOWER,
        CAFFE,
        CAFFENET,
        TORCHVISION,
        CONV6,
        HALF,
        NO_COMMUNICATION,
        BN,
        CIFAR_QUICK,
        CIFAR_19PCT,
        CIFAR_18PCT,
        CIFAR_13PCT,
        CIFAR_11PCT,
    )
}


def get_architecture(name: str) -> Architecture:
    """The record of a variant. Raises UserError for an unknown name, with the nearest known one."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"There is no model {name!r}; {hint}the models are {', '.join(ARCHITECTURES)}.")

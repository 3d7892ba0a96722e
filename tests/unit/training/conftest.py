"""A network small enough to train in a test, with everything the large ones have."""

import pytest
import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.models import Architecture, build_network
from alexnet.models.architecture import Convolution, Dropout, Linear, MaxPool, ReLU, ResponseNorm
from alexnet.training.checkpoint import Checkpoint

TINY = Architecture(
    name="tiny",
    summary="For tests.",
    source="none",
    image_size=16,
    pad_right_bottom=3,
    input_scale="pixels",
    channel_order="rgb",
    initialization="torch_default",
    layers=(
        Convolution("conv1", channels=8, kernel=5, stride=2),
        ReLU("relu1"),
        ResponseNorm("norm1", size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_convention="mean", towers=2),
        MaxPool("pool1", size=3, stride=2, ceil_mode=False),
        Linear("fc7", features=32),
        ReLU("relu7"),
        Dropout("drop7", rate=0.5, scaling="original"),
        Linear("fc8", features=None),
    ),
)


@pytest.fixture
def tiny_model():
    return build_network(TINY, 4, seed=1)


@pytest.fixture
def tiny_preprocessing():
    return Preprocessing(20, 16, "pixels", "rgb", "center_crop", torch.full((20, 20, 3), 128.0))


@pytest.fixture
def checkpoint(tiny_model, tiny_preprocessing):
    return Checkpoint(
        architecture=TINY,
        num_classes=4,
        image_size=16,
        classes=("n01", "n02", "n03", "n04"),
        class_names=("cat", "dog", "cow", "hen"),
        preprocessing=tiny_preprocessing,
        recipe={"seed": 3, "model": {"name": "as_run"}},
        data="photos",
        step=7,
        epoch=1.5,
        metrics={"top1_error": 0.25, "views": "center", "num_images": 8},
        model_state=tiny_model.state_dict(),
        training_state=None,
        environment={"versions": {"torch": "2.13.0"}},
    )

"""A network of a second's training, as a checkpoint, and a bench for a study to work on."""

import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.shapes import CLASSES
from alexnet.models import Architecture, create_model
from alexnet.models.architecture import Convolution, Dropout, Linear, MaxPool, ReLU
from alexnet.reporting.progress import Progress
from alexnet.reproduce.workbench import Workbench
from alexnet.training.checkpoint import Checkpoint, save_checkpoint

TWO_TOWERS = Architecture(
    name="small",
    summary="For tests.",
    source="none",
    image_size=24,
    pad_right_bottom=0,
    input_scale="pixels",
    channel_order="rgb",
    initialization="torch_default",
    layers=(
        Convolution("conv1", channels=8, kernel=5, stride=2),
        ReLU("relu1"),
        MaxPool("pool1", size=3, stride=2, ceil_mode=False),
        Convolution("conv2", channels=8, kernel=3, groups=2),
        Linear("fc7", features=16),
        ReLU("relu7"),
        Dropout("drop7", rate=0.5, scaling="original"),
        Linear("fc8", features=None),
    ),
)


def write_checkpoint(path, seed=3, model=None):
    """A checkpoint of a small network for the drawn shapes, 120 of them for training."""
    model = model or create_model(TWO_TOWERS, len(CLASSES), seed=seed)
    recipe = {"seed": seed, "data": {"image_size": 32, "max_train_images": 120}}
    checkpoint = Checkpoint(
        architecture=TWO_TOWERS,
        num_classes=len(CLASSES),
        image_size=24,
        classes=CLASSES,
        class_names=tuple(name.replace("_", " ") for name in CLASSES),
        preprocessing=Preprocessing(32, 24, "pixels", "rgb", "center_crop", torch.full((32, 32, 3), 128.0)),
        recipe=recipe,
        data="shapes:32",
        step=7,
        epoch=1.5,
        metrics={},
        model_state=model.state_dict(),
        training_state=None,
        environment={},
    )
    save_checkpoint(path, checkpoint)
    return path


def bench_of(folder, **changes):
    values = {"data": "shapes:32", "seeds": (0,), "overrides": (), "scale": "small", "display": Progress("silent")}
    folder.mkdir(exist_ok=True)
    return Workbench(folder=folder, **{**values, **changes})

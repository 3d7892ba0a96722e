"""A small network for drawn shapes as a checkpoint, a data set of them, and the commands as a person gives them."""

import torch
from PIL import Image

from alexnet.cli import app
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.shapes import CLASSES, draw_shape
from alexnet.models import Architecture, create_model
from alexnet.models.architecture import Convolution, Dropout, Linear, MaxPool, ReLU
from alexnet.training.checkpoint import Checkpoint, save_checkpoint

SMALL = Architecture(
    name="small",
    summary="For tests.",
    source="none",
    image_size=24,
    pad_right_bottom=1,
    input_scale="pixels",
    channel_order="rgb",
    initialization="torch_default",
    layers=(
        Convolution("conv1", channels=8, kernel=5, stride=2),
        ReLU("relu1"),
        MaxPool("pool1", size=3, stride=2, ceil_mode=True),
        Convolution("conv2", channels=20, kernel=3, padding=1, groups=2),
        ReLU("relu2"),
        Linear("fc7", features=16),
        ReLU("relu7"),
        Dropout("drop7", rate=0.5, scaling="original"),
        Linear("fc8", features=None),
    ),
)


def write_data_set(folder, num_train=20, num_val=40):
    """train/ and val/ with a folder for each class; image N of the shapes is NNN.png."""
    for split, count in (("train", num_train), ("val", num_val)):
        for index in range(count):
            path = folder / split / CLASSES[index % len(CLASSES)] / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_shape(split, index, 28)).save(path)
    return folder


def write_checkpoint(path, data="shapes:28", seed=0):
    model = create_model(SMALL, len(CLASSES), seed=seed)
    checkpoint = Checkpoint(
        architecture=SMALL,
        num_classes=len(CLASSES),
        image_size=24,
        classes=CLASSES,
        class_names=tuple(name.replace("_", " ") for name in CLASSES),
        preprocessing=Preprocessing(28, 24, "pixels", "rgb", "center_crop", torch.full((28, 28, 3), 120.0)),
        recipe={"data": {"max_train_images": 5}},
        data=str(data),
        step=7,
        epoch=1.5,
        metrics={},
        model_state=model.state_dict(),
        training_state=None,
        environment={},
    )
    save_checkpoint(path, checkpoint)
    return path


def give(*words):
    """Run `alexnet WORDS...` in this process; a mistake comes out as UserError. Returns the exit code."""
    code = app([str(word) for word in words], standalone_mode=False)
    return code or 0

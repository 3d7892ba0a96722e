"""A small network for drawn shapes as a checkpoint, a data set of them, and the commands as a person gives them."""

import shapes_network
from PIL import Image

from alexnet.cli import app
from alexnet.data.shapes import CLASSES, draw_shape


def write_data_set(folder, num_train=20, num_val=40):
    """train/ and val/ with a folder for each class; image N of the shapes is NNN.png."""
    for split, count in (("train", num_train), ("val", num_val)):
        for index in range(count):
            path = folder / split / CLASSES[index % len(CLASSES)] / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_shape(split, index, 28)).save(path)
    return folder


def write_checkpoint(path, data="shapes:28", seed=0):
    return shapes_network.write_checkpoint(path, data=data, recipe={"data": {"max_train_images": 5}}, seed=seed)


def give(*words):
    """Run `alexnet WORDS...` in this process; a mistake comes out as UserError. Returns the exit code."""
    code = app([str(word) for word in words], standalone_mode=False)
    return code or 0

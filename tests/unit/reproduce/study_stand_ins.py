"""A network of a second's training, as a checkpoint, and a bench for a study to work on."""

import shapes_network

from alexnet.reporting.progress import Progress
from alexnet.reproduce.workbench import Workbench


def write_checkpoint(path, seed=3, model=None):
    """A checkpoint of a small network for the drawn shapes, 120 of them for training."""
    recipe = {"seed": seed, "data": {"image_size": 32, "max_train_images": 120}}
    return shapes_network.write_checkpoint(path, square=32, data="shapes:32", recipe=recipe, seed=seed, model=model)


def bench_of(folder, **changes):
    values = {"data": "shapes:32", "seeds": (0,), "overrides": (), "scale": "small", "display": Progress("silent")}
    folder.mkdir(exist_ok=True)
    return Workbench(folder=folder, **{**values, **changes})

"""One server for the tests that change nothing about it."""

import pytest
from serving_stand_ins import color_checkpoint, color_folder, running_server

from alexnet.evaluation.image_list import open_images
from alexnet.serve.examples import examples_of_images


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Two networks: one is right, the other takes red for green and green for red."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return [color_checkpoint(folder / "right.pt"), color_checkpoint(folder / "wrong.pt", order=(1, 0, 2))]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The data set of the nearest images."""
    return color_folder(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="session")
def server(checkpoints, folder):
    """Both networks, the data set, its examples."""
    examples = examples_of_images(open_images(str(folder)))
    with running_server(checkpoints, data=folder, examples=examples) as running:
        yield running

"""Small data sets, whole and broken."""

import numpy as np
import pytest
from PIL import Image


def save_image(path, seed, size=(40, 48), **options):
    """Noise that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def make_data(tmp_path):
    """make_data({"train/cat": 6, "val/cat": 3}) -> the folder, every image another one."""

    def make(folders, name="photos", size=(40, 48)):
        root = tmp_path / name
        seed = 0
        for folder, count in folders.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                seed += 1
                save_image(root / folder / f"{index:03}.png", seed, size)
        return root

    return make


@pytest.fixture
def ids():
    """ids(findings) -> {id: severity}."""
    return lambda findings: {item.id: item.severity for item in findings}


SOUND = {"train/cat": 24, "train/dog": 24, "val/cat": 8, "val/dog": 8}


@pytest.fixture
def sound():
    """The folders of a data set that nothing is wrong with."""
    return dict(SOUND)

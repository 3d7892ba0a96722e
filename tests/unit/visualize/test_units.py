import numpy as np
import pytest
import torch
from networks_to_see import small_model

from alexnet.data.preprocessing import Preprocessing
from alexnet.evaluation.image_list import Squares
from alexnet.visualize.units import strongest_images

PREPROCESSING = Preprocessing(39, 35, "pixels", "rgb", "center_crop", torch.full((39, 39, 3), 100.0))


def squares(count, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 39, 39, 3), dtype=np.uint8))


def in_batches(pixels, size):
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        yield Squares(np.arange(start, start + len(part)) + 100, part)


@pytest.mark.parametrize("layer", ["relu2", "fc6", "fc7"])
def test_they_are_the_images_with_the_highest_outputs(layer):
    model, pixels = small_model(), squares(11)
    crops = pixels[:, 2:37, 2:37].permute(0, 3, 1, 2).float() - 100
    with torch.no_grad():
        outputs = model.activations(crops, [layer])[layer]
    for size in (3, 11):
        found = strongest_images(model, PREPROCESSING, in_batches(pixels, size), layer, 4)
        assert found.values.shape == (outputs.shape[1], 4)
        for unit in range(outputs.shape[1]):
            by_image = outputs[:, unit].flatten(1).max(dim=1).values if outputs.ndim == 4 else outputs[:, unit]
            order = np.argsort(-by_image.numpy(), kind="stable")[:4]
            assert (found.indices[unit] - 100).tolist() == order.tolist()
            assert torch.allclose(found.values[unit], by_image[order], rtol=1e-4, atol=1e-3)
            for position, image in enumerate(order):
                row, column = int(found.rows[unit, position]), int(found.columns[unit, position])
                if outputs.ndim == 4:
                    assert torch.allclose(outputs[image, unit, row, column], by_image[image])
                else:
                    assert (row, column) == (0, 0)


def test_of_equal_images_the_earlier_ones_come_first():
    pixels = squares(1).repeat(7, 1, 1, 1)
    found = strongest_images(small_model(), PREPROCESSING, in_batches(pixels, 2), "fc7", 3)
    assert found.indices.tolist() == [[100, 101, 102]] * 4


def test_fewer_images_than_asked_for_are_all():
    found = strongest_images(small_model(), PREPROCESSING, in_batches(squares(2), 2), "relu2", 9)
    assert found.values.shape[1] == 2

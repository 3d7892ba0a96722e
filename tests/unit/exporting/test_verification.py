"""The comparison of a file with its network: what it lets through, and what not."""

import numpy as np
import pytest
import torch
from export_stand_ins import small_checkpoint
from PIL import Image

from alexnet.data.squares import ImageSet
from alexnet.errors import RunError, UserError
from alexnet.exporting.accuracy import measure_loss
from alexnet.exporting.verification import (
    drawn_photographs,
    photographs_in,
    photographs_of,
    verify,
)
from alexnet.training.checkpoint import build_model


@pytest.fixture(scope="module")
def checkpoint():
    return small_checkpoint("cifar_quick")


@pytest.fixture(scope="module")
def photographs(checkpoint):
    return drawn_photographs(checkpoint.preprocessing.image_size)


class Stand:
    """The network itself as a file, with its outputs changed."""

    def __init__(self, checkpoint, change=lambda outputs: outputs):
        self.model, self.preprocessing, self.change = build_model(checkpoint), checkpoint.preprocessing, change
        self.batches = []

    def __call__(self, squares):
        self.batches.append(len(squares))
        start = (self.preprocessing.image_size - self.preprocessing.crop_size) // 2
        stop = start + self.preprocessing.crop_size
        crops = torch.from_numpy(squares[:, start:stop, start:stop].copy())
        with torch.inference_mode():
            logits = self.model(self.preprocessing.normalize(crops))
        return self.change({"probabilities": logits.softmax(1).numpy(), "logits": logits.numpy()})


def try_out(checkpoint, photographs, change=lambda outputs: outputs, tolerance=1e-4):
    run = Stand(checkpoint, change)
    model, preprocessing = build_model(checkpoint), checkpoint.preprocessing
    return run, verify(run, model, preprocessing, photographs, runtime="a stand-in", tolerance=tolerance)


def test_a_right_file_passes_at_batches_of_1_3_and_64(checkpoint, photographs):
    run, result = try_out(checkpoint, photographs)
    assert run.batches == [1, 3, 64] and result.batch_sizes == (1, 3, 64)
    assert result.largest < 1e-5 and result.logits is not None
    assert "16 drawn photographs" in result.images


def _one_wrong(outputs):
    outputs["probabilities"][-1] = np.roll(outputs["probabilities"][-1], 1)
    return outputs


@pytest.mark.parametrize(
    "change",
    [
        _one_wrong,
        lambda outputs: {**outputs, "probabilities": np.full_like(outputs["probabilities"], np.nan)},
        lambda outputs: {**outputs, "logits": outputs["logits"] * 1.001},
        lambda outputs: {"probabilities": outputs["probabilities"] ** 0.99},
    ],
    ids=["one image's classes", "not numbers", "logits", "a power"],
)
def test_a_wrong_file_does_not_pass(checkpoint, photographs, change):
    with pytest.raises(RunError, match="does not compute what the network does, so it was not kept"):
        try_out(checkpoint, photographs, change)


def test_another_number_of_classes_is_told(checkpoint, photographs):
    with pytest.raises(RunError, match=r"probabilities \(1, 6\) where \(1, 7\) are right"):
        try_out(checkpoint, photographs, lambda outputs: {"probabilities": outputs["probabilities"][:, :-1]})


def test_probabilities_all_but_zero_are_compared_by_their_logarithms(checkpoint, photographs):
    def change(outputs):
        probabilities = outputs["probabilities"].copy()
        probabilities[probabilities < 1e-6] *= 2
        return {"probabilities": probabilities}

    assert try_out(checkpoint, photographs)[1].probabilities < 1e-4
    with pytest.raises(RunError, match="their logarithms"):
        try_out(checkpoint, photographs, change)


def test_the_tolerance_is_the_callers(checkpoint, photographs):
    changed = lambda outputs: {"probabilities": outputs["probabilities"] + np.float32(1e-3)}  # noqa: E731
    with pytest.raises(RunError, match=r"--tolerance is 1e-05"):
        try_out(checkpoint, photographs, changed, tolerance=1e-5)
    assert try_out(checkpoint, photographs, changed, tolerance=1.0)[1].probabilities == pytest.approx(1e-3, rel=1e-3)


def test_a_network_that_is_broken_itself_is_not_blamed_on_the_file(photographs):
    broken = small_checkpoint("cifar_quick")
    broken.model_state["fc10.bias"][0] = float("nan")
    with pytest.raises(RunError, match="the network itself gives outputs that are not finite"):
        try_out(broken, photographs)


def test_photographs_come_from_files_and_folders_and_are_repeated(tmp_path):
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (50, 40), colour).save(tmp_path / name)
    photographs = photographs_in([tmp_path], 37)
    assert photographs.squares.shape == (64, 37, 37, 3)
    assert photographs.squares[[0, 1, 62, 63], 5, 5].tolist() == [[255, 0, 0], [0, 0, 255]] * 2
    assert photographs.source.startswith("2 images of")


def test_a_photograph_that_is_none_is_the_persons_mistake(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--images: .*a\.png"):
        photographs_in([tmp_path / "a.png"], 37)
    with pytest.raises(UserError, match="the folder holds no image files"):
        photographs_in([tmp_path / "empty"], 37)


def image_set(checkpoint, labels):
    side = checkpoint.preprocessing.image_size
    squares = np.random.default_rng(0).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
    return ImageSet(np.array(labels), [str(index) for index in range(len(labels))], side, array=squares)


def test_a_data_set_is_looked_at_from_end_to_end(checkpoint):
    images = image_set(checkpoint, [0] * 200)
    photographs = photographs_of(images, "noise")
    assert photographs.source == "64 images of noise"
    assert np.array_equal(photographs.squares[0], images.square(0))
    assert np.array_equal(photographs.squares[63], images.square(199))


def test_the_loss_counts_every_image_once_for_both(checkpoint):
    right = Stand(checkpoint)
    images = image_set(checkpoint, [0] * 70)
    truth = right(np.stack([images.square(index) for index in range(70)]))["probabilities"].argmax(1)
    images = ImageSet(truth, images.keys, images.image_size, array=images.array)

    def first_wrong(outputs):
        outputs["probabilities"] = outputs["probabilities"].copy()
        outputs["probabilities"][0] = np.roll(outputs["probabilities"][0], 1)
        return outputs

    run = Stand(checkpoint, first_wrong)  # the first image of each batch
    seen = []
    loss = measure_loss(run, checkpoint, images, data="noise", split="val", on_file=lambda *each: seen.append(each))
    assert run.batches == [64, 6] and seen == [(64, 70), (70, 70)]
    assert loss.network.top1_error == 0 and loss.file.top1_error == pytest.approx(2 / 70)
    assert loss.same_first_guess == pytest.approx(68 / 70) and loss.top1_points == pytest.approx(100 * 2 / 70)
    assert (loss.views, loss.num_images, loss.data, loss.split) == ("center", 70, "noise", "val")
    assert loss.largest_difference > 0.01

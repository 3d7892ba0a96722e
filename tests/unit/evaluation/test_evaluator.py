import numpy as np
import pytest
import torch
from evaluation_stand_ins import Scores, linear, names, preprocessing, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import RunError, UserError
from alexnet.evaluation.evaluator import evaluate

SIZE, CROP, CLASSES = 12, 8, 7


def run(models, images, **options):
    preprocessings = options.pop("preprocessings", None) or [preprocessing(SIZE, CROP)] * len(models)
    return evaluate(models, preprocessings, images, classes=names(CLASSES), **options)


@settings(max_examples=25, deadline=None)
@given(
    count=st.sampled_from([1, 2, 7, 31, 53]),
    batch_size=st.integers(1, 64),
    views=st.sampled_from(["center", "flip", "ten_crop"]),
    on_demand=st.booleans(),
)
def test_every_image_is_counted_once_whatever_the_batch_size(count, batch_size, views, on_demand):
    images = random_images(count, SIZE, CLASSES, on_demand=on_demand)
    seen = []
    report = run(
        [linear(CLASSES, CROP)], images, views=views, batch_size=batch_size, on_progress=lambda *x: seen.append(x)
    )
    whole = run([linear(CLASSES, CROP)], images, views=views, batch_size=10_000)
    assert report.num_images == count == report.confusion.sum()
    np.testing.assert_allclose(report.probabilities, whole.probabilities, rtol=1e-5)
    assert seen[-1] == (count, count) and sorted(set(seen)) == seen


def test_view_probabilities_and_not_logits_are_averaged():
    images = random_images(9, SIZE, CLASSES)
    model = linear(CLASSES, CROP).eval()
    report = run([model], images, views="ten_crop", batch_size=4)
    expected = np.zeros((9, CLASSES))
    for top, left in [(0, 0), (0, 4), (2, 2), (4, 0), (4, 4)]:
        for step in (1, -1):
            crops = images.array[:, top : top + CROP, left : left + CROP][:, :, ::step].astype(np.float32)
            logits = model(torch.from_numpy(crops.transpose(0, 3, 1, 2).copy())).detach().double()
            expected += logits.softmax(1).numpy() / 10
    np.testing.assert_allclose(report.probabilities, expected, rtol=2e-4)
    np.testing.assert_allclose(report.probabilities.sum(axis=1), 1, rtol=1e-6)
    of_label = expected[np.arange(9), images.labels]
    assert report.loss == pytest.approx(-np.log(of_label).mean(), rel=1e-4)
    assert report.top1_error == np.mean(expected.argmax(1) != images.labels)


def test_an_ensemble_is_the_mean_of_its_members():
    images = random_images(11, SIZE, CLASSES)
    first, second = linear(CLASSES, CROP, seed=1), linear(CLASSES, 6, seed=2)
    other = preprocessing(SIZE, 6, torch.full((SIZE, SIZE, 3), 90.0))
    alone = run([first], images).probabilities, run([second], images, preprocessings=[other]).probabilities
    both = run([first, second], images, preprocessings=[preprocessing(SIZE, CROP), other])
    np.testing.assert_allclose(both.probabilities, (alone[0] + alone[1]) / 2, rtol=1e-5)
    assert both.num_models == 2 and both.protocol.crop_sizes == (CROP, 6)


def left_minus_right(images):
    half = images.shape[3] // 2
    score = (images[..., :half].mean((1, 2, 3)) - images[..., half:].mean((1, 2, 3))) / 50
    return torch.nn.functional.pad(torch.stack([score, -score], 1), (0, CLASSES - 2), value=-1e4)


def test_mirrored_views_cancel_what_is_left_and_right():
    images = random_images(6, SIZE, 2)
    centre = run([Scores(left_minus_right)], images, views="center").probabilities
    flip = run([Scores(left_minus_right)], images, views="flip").probabilities
    assert np.abs(centre[:, 0] - 0.5).max() > 0.01
    np.testing.assert_allclose(flip[:, :2], 0.5, rtol=1e-5)


def test_the_2012_mean_is_its_centre_crop_and_not_mirrored_with_the_view():
    """paper.md 4.3: all views have the same centre mean crop subtracted, not flipped."""
    mean = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0)) * 200
    images = random_images(3, SIZE, CLASSES)
    inputs = []

    def record(batch):
        inputs.append(batch.clone())
        return torch.zeros(len(batch), CLASSES)

    run([Scores(record)], images, views="ten_crop", preprocessings=[preprocessing(SIZE, CROP, mean)], batch_size=10)
    square = torch.from_numpy(images.array[0]).float()
    centre = mean[2 : 2 + CROP, 2 : 2 + CROP]
    expected = [square[t : t + CROP, x : x + CROP] for t, x in [(0, 0), (0, 4), (2, 2), (4, 0), (4, 4)]]
    expected = torch.stack([crop - centre for crop in expected] + [crop.flip(1) - centre for crop in expected])
    assert torch.equal(inputs[0], expected.permute(0, 3, 1, 2))


def test_the_mean_of_the_papers_text_belongs_to_the_square_and_moves_with_the_view():
    """data.preprocessing, mean "at_crop": cropped and mirrored with the image: the mean image becomes 0."""
    mean = torch.randint(0, 256, (SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0))
    images = random_images(1, SIZE, CLASSES)
    images.array[0] = mean.numpy()
    inputs = []

    def record(batch):
        inputs.append(batch)
        return torch.zeros(len(batch), CLASSES)

    run([Scores(record)], images, preprocessings=[preprocessing(SIZE, CROP, mean.float(), "at_crop")])
    assert torch.cat(inputs).shape == (10, 3, CROP, CROP) and torch.cat(inputs).abs().max() == 0


def test_inputs_have_the_dtype_asked_for_and_probabilities_are_float32():
    dtypes = set()

    def record(batch):
        dtypes.add(batch.dtype)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        return torch.zeros(len(batch), CLASSES, dtype=batch.dtype)

    report = run([Scores(record)], random_images(3, SIZE, CLASSES), dtype=torch.bfloat16)
    assert dtypes == {torch.bfloat16} and report.probabilities.dtype == np.float32


def test_equal_outputs_score_chance_level():
    report = run([Scores(lambda x: torch.zeros(len(x), CLASSES))], random_images(20, SIZE, CLASSES))
    assert report.top1_error == pytest.approx(6 / 7)
    assert report.top5_error == pytest.approx(2 / 7)
    assert report.guesses.tolist() == [0] * 20


def test_modes_are_used_and_restored_also_after_an_error():
    model = linear(CLASSES, CROP)
    model.train()
    model[0].eval()
    first = run([model], random_images(5, SIZE, CLASSES))
    assert np.array_equal(first.probabilities, run([model], random_images(5, SIZE, CLASSES)).probabilities)
    assert [module.training for module in model] == [False, True, True]
    with pytest.raises(RuntimeError):
        run([model], random_images(5, SIZE, CLASSES), preprocessings=[preprocessing(SIZE, 5)])
    assert [module.training for module in model] == [False, True, True]


def test_outputs_that_are_not_finite_name_the_first_image():
    def scores(batch):
        logits = torch.zeros(len(batch), CLASSES)
        logits[batch[:, 0, 0, 0] > 99, 3] = float("nan")
        return logits

    images = random_images(13, SIZE, CLASSES)
    images.array[:] = 0
    images.array[[4, 8]] = 200
    with pytest.raises(RunError, match=r"2 of 13 images, the first being image-4"):
        run([Scores(scores)], images, batch_size=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessings": [preprocessing(SIZE + 1, CROP)]}, r"squares of 12 pixels.*squares of 13;"),
        ({"views": "nine"}, "Unknown views"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        run([linear(CLASSES, CROP)], random_images(5, SIZE, CLASSES), **options)


def test_labels_and_outputs_beyond_the_classes_are_refused():
    with pytest.raises(UserError, match=r"labels from .* 7 classes"):
        run([linear(CLASSES, CROP)], random_images(50, SIZE, CLASSES + 2))
    with pytest.raises(UserError, match=r"5 outputs.*7 classes"):
        run([linear(5, CROP)], random_images(5, SIZE, 3))
    with pytest.raises(UserError, match=r"same classes; one has 7, another 5"):
        run([linear(CLASSES, CROP), linear(5, CROP)], random_images(5, SIZE, 3))
    with pytest.raises(UserError, match="no image to evaluate"):
        run([linear(CLASSES, CROP)], random_images(0, SIZE, CLASSES))


def test_an_image_that_cannot_be_read_any_more_ends_the_evaluation():
    images = random_images(9, SIZE, CLASSES, on_demand=True)
    whole = images.square

    def square(index):
        if index == 6:
            raise RunError("image-6 is gone")
        return whole(index)

    images.square = square
    with pytest.raises(RunError, match="image-6"):
        run([linear(CLASSES, CROP)], images, batch_size=20)

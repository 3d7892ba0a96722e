import pytest
import torch
from networks_to_see import IMAGE_SIZE, random_inputs, small_model

from alexnet.errors import UserError
from alexnet.visualize.occlusion import occlude


def by_a_loop(model, inputs, class_index, patch, tops):
    """For each pixel the mean fall over all patches on it, one forward pass a place."""
    falls = torch.zeros(IMAGE_SIZE, IMAGE_SIZE)
    counts = torch.zeros(IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        before = model(inputs).softmax(1)[0, class_index]
        for top in tops:
            for left in tops:
                hidden = inputs.clone()
                hidden[:, :, top : top + patch, left : left + patch] = 0
                fall = before - model(hidden).softmax(1)[0, class_index]
                falls[top : top + patch, left : left + patch] += fall
                counts[top : top + patch, left : left + patch] += 1
    return falls / counts


@pytest.mark.parametrize(
    ("patch", "stride", "tops"),
    [(10, 7, [0, 7, 14, 21, 25]), (5, 5, [0, 5, 10, 15, 20, 25, 30]), (IMAGE_SIZE, 3, [0])],
)
def test_it_is_the_loop_over_all_places(patch, stride, tops):
    model, inputs = small_model().train(), 3 * random_inputs(seed=2)
    seen = []
    found = occlude(
        model,
        inputs,
        patch=patch,
        stride=stride,
        batch_size=4,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert found.tops == tops and found.after.shape == (len(tops), len(tops), 4)
    assert model.training
    for class_index in (0, 3):
        expected = by_a_loop(model.eval(), inputs, class_index, patch, tops)
        assert float(expected.abs().max()) > 1e-3
        assert torch.allclose(found.fall(class_index), expected, atol=1e-6)
        model.train()
    assert seen[-1] == (len(tops) ** 2,) * 2 and seen == sorted(seen)
    assert torch.allclose(found.before.sum(), torch.tensor(1.0))


def test_the_image_stays_as_it_is_and_the_defaults_cover_it():
    model, inputs = small_model(), random_inputs()
    before = inputs.clone()
    found = occlude(model, inputs)
    assert torch.equal(inputs, before)
    assert (found.patch, found.stride) == (5, 1)
    assert torch.isfinite(found.fall(0)).all()


@pytest.mark.parametrize(
    ("patch", "stride", "message"),
    [
        (36, 1, "a patch of 36 pixels moved by 1 does not fit an image of 35"),
        (0, 1, "the patch can have 1 to 35 pixels"),
        (4, 5, "a stride of 5 pixels would jump over parts of the image; at most the patch's 4"),
    ],
)
def test_what_does_not_fit_is_refused(patch, stride, message):
    with pytest.raises(UserError, match=message):
        occlude(small_model(), random_inputs(), patch=patch, stride=stride)

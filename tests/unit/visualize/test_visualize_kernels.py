import numpy as np
import pytest
import torch
from networks_to_see import small_model

from alexnet.errors import UserError
from alexnet.models import build_network
from alexnet.models.architecture import Linear
from alexnet.visualize import color_share, kernel_banks


def test_each_tower_has_a_bank_of_kernels():
    model = build_network("as_run", 2, image_size=67)
    banks = kernel_banks(model)
    assert [bank.shape for bank in banks] == [(48, 3, 11, 11)] * 2
    assert np.array_equal(np.concatenate(banks), model.conv1.weight.detach().numpy())
    assert len(kernel_banks(build_network("one_tower", 2, image_size=67))) == 1


def test_kernels_are_shown_in_red_green_and_blue():
    model = small_model(channel_order="bgr")
    weights = model.conv1.weight.detach()
    assert torch.equal(torch.from_numpy(np.concatenate(kernel_banks(model))), weights.flip(1))


def test_a_network_without_such_kernels_is_refused():
    with pytest.raises(UserError, match="small has no conv1 with kernels for red, green and blue"):
        kernel_banks(small_model(layers=(Linear("fc1", None),)))


def test_the_colour_share_of_grey_of_pure_colours_and_of_noise():
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(1, 1, 11, 11))
    grey = np.repeat(shape, 3, axis=1)
    opponent = np.concatenate([shape, -shape, 0 * shape], axis=1)
    red = np.concatenate([shape, 0 * shape, 0 * shape], axis=1)
    half = grey + opponent  # energies 3 and 2
    shares = color_share(np.concatenate([grey, opponent, red, half, 0 * grey]))
    # A single channel c is grey c/3 and the rest: 1 - 3 * (1/3)^2.
    assert shares == pytest.approx([0, 1, 2 / 3, 2 / 5, 0], abs=1e-12)
    noise = color_share(rng.normal(size=(500, 3, 11, 11)))
    assert noise.mean() == pytest.approx(2 / 3, abs=0.01)


def test_the_share_does_not_depend_on_a_kernels_size():
    kernels = np.random.default_rng(1).normal(size=(4, 3, 5, 5))
    assert color_share(1e-3 * kernels) == pytest.approx(color_share(kernels))

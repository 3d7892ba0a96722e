"""Draws depend on (seed, purpose, position) and on nothing else."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from alexnet.runtime.randomness import draw_dropout_masks, random_stream

CPU = torch.device("cpu")


def masks(seed=0, step=0, batch_size=64, layers=None):
    layers = layers or {"drop6": (512, 0.5)}
    return draw_dropout_masks(layers, seed=seed, step=step, batch_size=batch_size, device=CPU)


def test_the_same_arguments_give_the_same_numbers_whatever_was_drawn_before():
    first = random_stream(3, "crop", 7).integers(0, 2**32, 100)
    random_stream(3, "crop", 8).integers(0, 2**32, 1000)
    assert np.array_equal(first, random_stream(3, "crop", 7).integers(0, 2**32, 100))


@given(seed=st.integers(0, 2**40), step=st.integers(0, 2**40))
def test_seed_purpose_and_position_all_matter(seed, step):
    def first(*arguments):
        return random_stream(*arguments).integers(0, 2**63)

    numbers = {
        first(seed, "crop", step),
        first(seed + 1, "crop", step),
        first(seed, "color", step),
        first(seed, "crop", step + 1),
        first(seed, "crop", step, 1),
    }
    assert len(numbers) == 5


def test_streams_of_neighbouring_steps_do_not_overlap():
    # The position is in the counter's high words: a stream would need 2**64 blocks to reach the next one's.
    one = random_stream(0, "crop", 1).integers(0, 2**63, 10_000)
    two = random_stream(0, "crop", 2).integers(0, 2**63, 10_000)
    assert not np.isin(one, two).any()


def test_dropout_masks_keep_the_stated_share():
    layers = {"drop6": (4096, 0.5), "drop7": (4096, 0.2)}
    drawn = masks(layers=layers, batch_size=128)
    for name, (features, rate) in layers.items():
        assert drawn[name].shape == (128, features) and drawn[name].dtype == torch.bool
        share = drawn[name].float().mean().item()
        assert abs(share - (1 - rate)) < 5 * (rate * (1 - rate) / (128 * 4096)) ** 0.5


def test_a_rate_of_zero_keeps_everything():
    assert bool(masks(layers={"drop6": (1000, 0.0)})["drop6"].all())


def test_layers_steps_and_seeds_have_masks_of_their_own():
    both = masks(layers={"drop6": (512, 0.5), "drop7": (512, 0.5)})
    assert not torch.equal(both["drop6"], both["drop7"])
    assert not torch.equal(masks(step=1)["drop6"], masks(step=2)["drop6"])
    assert not torch.equal(masks(seed=1)["drop6"], masks(seed=2)["drop6"])
    assert torch.equal(both["drop6"], masks()["drop6"])  # another layer beside it changes nothing

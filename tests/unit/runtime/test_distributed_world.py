"""What one process knows of the others, without any others."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import DivergedError, RunError, UserError
from alexnet.runtime.distributed import ALONE, World, join_world


@given(count=st.integers(0, 100_000), size=st.integers(1, 512))
def test_every_thing_belongs_to_one_process_and_the_shares_are_even(count, size):
    shares = [World(rank=rank, size=size).share(count) for rank in range(size)]
    assert shares[0].start == 0 and shares[-1].stop == count
    assert all(one.stop == next_one.start for one, next_one in pairwise(shares))
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world(1.0) as world:
        assert world is ALONE and world.is_main
        assert world.gather(5) == [5] and world.from_main(6) == 6


def test_half_of_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"), join_world(1.0):
        pass


def test_alone_an_error_stays_what_it_is():
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError("anything")


class Others(World):
    """A world whose other processes say what they are told to say."""

    def gather(self, value):
        return [value, *self.said]


def others(rank, *said):
    world = Others(rank=rank, size=1 + len(said))
    object.__setattr__(world, "said", list(said))
    return world


def test_the_error_of_another_is_raised_here_and_says_whose_it_is():
    with (
        pytest.raises(UserError, match=r"^on rank 1: photos does not exist") as caught,
        others(0, (UserError, "photos does not exist")).together(),
    ):
        pass
    assert not caught.value.is_told_elsewhere  # the main process prints it


def test_an_error_of_all_keeps_its_kind_and_names_nobody():
    with (
        pytest.raises(DivergedError, match=r"^the disk is full") as caught,
        others(0, (DivergedError, "the disk is full")).together(),
    ):
        raise DivergedError("the disk is full")
    assert not caught.value.is_told_elsewhere


def test_where_nothing_went_wrong_nothing_is_raised():
    with others(0, None, None).together():
        pass


def test_only_the_main_process_prints_a_shared_error():
    error = World(rank=3, size=4).told_once(RunError("diverged"))
    assert error.is_told_elsewhere

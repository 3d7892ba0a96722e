"""Batches ahead of their use: order, bound, errors and the end. The copies are stand-ins that run on any device."""

import threading
import time

import numpy as np
import pytest
import torch

from alexnet.data.loader import Batch
from alexnet.data.transfer import batches_on_device, prefetch, with_tensors

CPU = torch.device("cpu")


def make_batch(step):
    return Batch(
        step=step,
        indices=np.arange(2),
        labels=torch.tensor([step, step]),
        crops=torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        offsets=None,
        flips=torch.zeros(2, dtype=torch.bool),
        color_shift=None,
        divisor=1.0,
    )


class StandIn:
    """Counts what is under way; both halves say which thread they ran on."""

    def __init__(self):
        self.started = self.finished = self.most = 0
        self.threads = set()

    def start(self, batch):
        self.started += 1
        self.most = max(self.most, self.started - self.finished)
        self.threads.add(threading.current_thread().name)
        return with_tensors(batch, torch.clone)

    def finish(self, started):
        self.finished += 1
        assert threading.current_thread() is threading.main_thread()
        return started


def transfer_threads():
    return [thread for thread in threading.enumerate() if thread.name == "alexnet-transfer"]


def test_batches_arrive_in_order_and_no_more_are_ahead_than_asked():
    mover = StandIn()
    steps = []
    for batch in prefetch((make_batch(step) for step in range(20)), mover, ahead=3):
        time.sleep(0.002)
        steps.append((batch.step, batch.labels[0].item()))
    assert steps == [(step, step) for step in range(20)]
    assert mover.most <= 3
    assert mover.threads == {"alexnet-transfer"}
    assert transfer_threads() == []


def test_an_error_of_the_loader_arrives_where_the_batches_are_used():
    def failing():
        yield make_batch(0)
        raise OSError("unreadable")

    batches = prefetch(failing(), StandIn(), ahead=2)
    assert next(batches).step == 0
    with pytest.raises(OSError, match="unreadable"):
        next(batches)
    assert transfer_threads() == []


def test_an_error_of_the_copy_arrives_too():
    mover = StandIn()
    mover.start = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        next(prefetch(iter([make_batch(0)]), mover, ahead=2))


@pytest.mark.parametrize("ahead", [1, 3])
def test_closing_early_closes_the_loader_and_ends_the_thread(ahead):
    closed = threading.Event()

    def endless():
        try:
            step = 0
            while True:
                yield make_batch(step)
                step += 1
        finally:
            closed.set()

    batches = prefetch(endless(), StandIn(), ahead=ahead)
    assert next(batches).step == 0
    batches.close()
    assert closed.is_set() and transfer_threads() == []


def test_without_cuda_batches_pass_through_and_the_loader_is_closed():
    closed = threading.Event()
    given = [make_batch(step) for step in range(3)]

    def source():
        try:
            yield from given
        finally:
            closed.set()

    batches = batches_on_device(source(), CPU)
    assert next(batches) is given[0] and next(batches) is given[1]
    batches.close()
    assert closed.is_set()


def test_every_tensor_of_a_batch_is_moved_and_nothing_else_is_changed():
    batch = make_batch(4)
    moved = with_tensors(batch, lambda tensor: tensor + 1 if tensor.dtype != torch.bool else ~tensor)
    assert moved.labels.tolist() == [5, 5] and moved.flips.all() and moved.crops.max() == 1
    assert moved.offsets is None and moved.indices is batch.indices and moved.step == 4

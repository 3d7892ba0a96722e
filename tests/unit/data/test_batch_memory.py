"""A block of memory comes back when nothing lies in it any more, and not before."""

import gc
import threading
import time

import torch

from alexnet.data.batch_memory import BatchMemory


def test_memory_is_used_again_when_its_tensor_is_gone():
    memory = BatchMemory((2, 3), pinned=False)
    first = memory.take()
    address = first.data_ptr()
    del first
    gc.collect()
    assert memory.take().data_ptr() == address


def test_memory_that_any_view_lies_in_is_not_handed_out():
    memory = BatchMemory((4, 3), pinned=False)
    row = memory.take()[1:2].view(-1)
    row.fill_(7)
    array = memory.take().numpy()
    array.fill(9)
    for _ in range(5):
        memory.take().fill_(0)
    assert row.tolist() == [7, 7, 7] and (array == 9).all()


def test_threads_never_get_the_same_memory():
    memory = BatchMemory((64,), pinned=False)
    wrong = []

    def use(number: int) -> None:
        for _ in range(300):
            tensor = memory.take().fill_(number)
            time.sleep(0)
            wrong.extend([number] * int((tensor != number).any()))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(memory._free) <= 8  # each holds its last while it takes the next


def test_the_shape_and_type_are_those_of_pixels():
    tensor = BatchMemory((5, 4, 4, 3), pinned=False).take()
    assert tensor.shape == (5, 4, 4, 3) and tensor.dtype == torch.uint8 and tensor.is_contiguous()

"""The C entry points called directly: with impossible records they refuse, with possible ones they stay in bounds.

`make test-sanitizers` runs this with AddressSanitizer and UBSan, and ALEXNET_FUZZ_CASES=20000.
"""

import ctypes
import math
import os

import numpy as np
import pytest
import torch

from alexnet.ops import native
from alexnet.ops.block import Block, Pool, plain_block
from alexnet.ops.chunked_norm import Norm, formula
from alexnet.ops.native import pixels

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the C kernels were not built (no compiler)")
NUM_CASES = int(os.environ.get("ALEXNET_FUZZ_CASES", "1200"))
DONE, IMPOSSIBLE = 0, 2
HUGE = [-1, -3, -(2**31), 2**21, 2**31 - 1]
SEVERAL = ctypes.c_void_p(None)  # no team of threads: one thread does all the work


def functions():
    return native._loaded().functions


def instruction_sets():
    return range(functions().alexnet_instruction_set() + 1)


class Memory:
    """Numbers that begin `shift` bytes after a multiple of 16, in memory that ends with the last of them."""

    def __init__(self, count, dtype, shift=0, values=None):
        self.dtype = np.dtype(dtype)
        self.owner = np.zeros(shift + count * self.dtype.itemsize, np.uint8)
        self.address = self.owner.ctypes.data + shift
        self.array = self.owner[shift:]
        if values is not None:
            self.array[:] = np.frombuffer(np.ascontiguousarray(values, dtype).tobytes(), np.uint8)

    @property
    def values(self):
        return np.frombuffer(self.array.tobytes(), self.dtype)


def block_of(record):
    """The record as the operators of torch have it."""
    norm = record["norm"]
    spatial = record["spatial"]
    return Block(
        bool(record["relu_first"]),
        Norm(norm[0], norm[2], norm[3], norm[4], norm[1]) if norm[0] else None,
        Norm(spatial[0], spatial[2], spatial[3], spatial[4], None) if spatial[0] else None,
        Pool(record["pool_size"], record["pool_stride"], True) if record["pool_size"] else None,
        bool(record["relu_last"]),
    )


def c_block(record):
    names = ("height", "width", "channels", "pool_size", "pool_stride", "pooled_height", "pooled_width")
    norms = (native._Norm(*record["norm"]), native._Norm(*record["spatial"]))
    return native._Block(*(record[name] for name in names), *norms, record["relu_first"], record["relu_last"])


def is_possible(record):
    """Written here once more: what a block may be."""
    if not all(1 <= record[name] <= 2**20 for name in ("height", "width", "channels")):
        return False
    for size, _, *numbers in (record["norm"], record["spatial"]):
        if not 0 <= size <= 4096 or not all(map(math.isfinite, numbers)):
            return False
    towers = record["norm"][1]
    if not 1 <= towers <= record["channels"] or record["channels"] % towers:
        return False
    if record["spatial"][0] and record["spatial"][0] % 2 == 0:
        return False
    if not {record["relu_first"], record["relu_last"]} <= {0, 1}:
        return False
    size, stride = record["pool_size"], record["pool_stride"]
    pooled = [(record["pooled_height"], record["height"]), (record["pooled_width"], record["width"])]
    if size == 0:
        return all(a == b for a, b in pooled) and not record["relu_last"]
    if not 1 <= size <= 15 or not 1 <= stride <= 2**20:
        return False
    return all(a >= 1 and (a - 1) * stride < b for a, b in pooled)


def pooled_side(side, size, stride):
    return max(1, min(-(-(side - size) // stride) + 1, (side - 1) // stride + 1))


def draw_record(random):
    """A record that is possible, and in three of ten cases has one value replaced."""
    height, width = random.integers(1, 14, 2).tolist()
    towers = int(random.integers(1, 4))
    record = {"height": height, "width": width, "channels": towers * int(random.integers(1, 12))}
    numbers = [float(random.uniform(0.001, 0.2)), float(random.choice([0.75, 0.5, 1.0])), float(random.uniform(0.5, 2))]
    record["norm"] = [int(random.choice([0, 1, 2, 3, 5, 8, 9])), towers, *numbers]
    record["spatial"] = [int(random.choice([0, 0, 1, 3, 5, 7])), 1, *numbers]
    size = int(random.choice([0, 1, 2, 3, 3, 4, 5, 15]))
    stride = int(random.integers(1, 5))
    record |= {"pool_size": size, "pool_stride": stride, "relu_first": int(random.integers(0, 2))}
    record["relu_last"] = int(random.integers(0, 2)) if size else 0
    record["pooled_height"] = pooled_side(height, size, stride) if size else height
    record["pooled_width"] = pooled_side(width, size, stride) if size else width
    if random.random() < 0.3:
        key = str(random.choice(list(record)))
        if isinstance(record[key], list):
            place = int(random.integers(0, 5))
            wrong = [*HUGE, 0, 2, 5000] if place < 2 else [math.nan, math.inf, -math.inf]
            record[key][place] = random.choice(wrong).item()
        else:
            record[key] = int(random.choice([*HUGE, 0, 16, record[key] + 1]))
    return record


def test_a_block_is_computed_in_bounds_or_refused():
    random = np.random.default_rng(0)
    refused = compared = 0
    for case in range(NUM_CASES):
        record = draw_record(random)
        n, bfloat16 = int(random.integers(0, 3)), bool(random.random() < 0.4)
        dtype, itemsize = (np.uint16, 2) if bfloat16 else (np.float32, 4)
        shift = int(random.choice([0, itemsize, 2 * itemsize, 6 * itemsize, *([1] if random.random() < 0.2 else [])]))
        possible = is_possible(record)
        sizes = [record[name] if possible else 4 for name in ("height", "width", "channels")]
        pooled = [record[name] if possible else 4 for name in ("pooled_height", "pooled_width")]
        maps = torch.from_numpy(random.normal(size=(n, *sizes)).astype(np.float32))
        maps = maps.bfloat16() if bfloat16 else maps
        x = Memory(maps.numel(), dtype, shift, maps.view(torch.int16).numpy() if bfloat16 else maps.numpy())
        count = n * pooled[0] * pooled[1] * sizes[2]
        y, winners = Memory(count, dtype, shift), Memory(count, np.uint8)
        grad = torch.from_numpy(random.normal(size=count).astype(np.float32))
        grad = grad.bfloat16() if bfloat16 else grad
        grad_y = Memory(count, dtype, shift, grad.view(torch.int16).numpy() if bfloat16 else grad.numpy())
        grad_x = Memory(maps.numel(), dtype, shift)
        block, isa = c_block(record), int(random.choice(list(instruction_sets())))
        wins = winners.address if record["pool_size"] else None
        status = functions().alexnet_block_forward(
            ctypes.byref(block), n, bfloat16, x.address, y.address, wins, isa, SEVERAL, int(random.integers(1, 5))
        )
        back = functions().alexnet_block_backward(
            ctypes.byref(block), n, bfloat16, x.address, grad_y.address, wins, grad_x.address, isa, SEVERAL, 1
        )
        expected = DONE if possible and (shift % itemsize == 0 or n == 0) else IMPOSSIBLE
        assert (status, back) == (expected, expected), (case, record, n, shift)
        refused += expected == IMPOSSIBLE
        if expected == DONE and n and not bfloat16 and case % 4 == 0 and record["pool_size"] <= min(sizes[:2]):
            wide = maps.double().permute(0, 3, 1, 2).requires_grad_()
            result = plain_block(wide, block_of(record), formula)
            if list(result.shape[2:]) != pooled:
                continue
            (result.permute(0, 2, 3, 1).reshape(-1) * grad).sum().backward()
            assert np.allclose(y.values, result.detach().permute(0, 2, 3, 1).reshape(-1), atol=1e-4, rtol=1e-4), record
            assert np.allclose(grad_x.values, wide.grad.permute(0, 2, 3, 1).reshape(-1), atol=1e-3, rtol=1e-3), record
            compared += 1
    assert refused > NUM_CASES // 10 and compared > NUM_CASES // 40


def test_an_update_is_computed_in_bounds_or_refused():
    random = np.random.default_rng(1)
    for _ in range(NUM_CASES // 10):
        length = int(random.choice([0, 1, 3, 17, 100, 2**15, 2**15 + 5]))
        bfloat16, with_copy, shift = (bool(random.integers(0, 2)) for _ in range(3))
        numbers = [random.normal(size=length).astype(np.float32) for _ in range(3)]
        weight, velocity = (Memory(length, np.float32, 4 * shift, values) for values in numbers[:2])
        gradient = torch.from_numpy(numbers[2])
        narrow = gradient.bfloat16() if bfloat16 else gradient
        given = Memory(length, np.uint16, 2 * shift, narrow.view(torch.int16).numpy()) if bfloat16 else (
            Memory(length, np.float32, 4 * shift, numbers[2])
        )  # fmt: skip
        copy = Memory(length, np.uint16, 2 * shift)
        wrong = str(random.choice(["", "", "", "length", "weight", "gradient", "alignment"]))
        record = native._Update(
            None if wrong == "weight" else weight.address,
            velocity.address + (wrong == "alignment"),
            None if wrong == "gradient" else given.address,
            copy.address if with_copy else None,
            -1 if wrong == "length" else length,
            0.9, 0.01, 0.1, 1.0, bfloat16,
        )  # fmt: skip
        isa = int(random.choice(list(instruction_sets())))
        status = functions().alexnet_update(ctypes.byref(record), isa, SEVERAL, 1)
        impossible = wrong == "length" or (wrong != "" and length > 0)
        assert status == (IMPOSSIBLE if impossible else DONE), (wrong, length)
        if status == DONE:
            v = 0.9 * numbers[1] - 0.01 * numbers[0] - 0.1 * narrow.float().numpy()
            assert np.allclose(velocity.values, v, atol=1e-5)
            assert np.allclose(weight.values, numbers[0] + v, atol=1e-5)


def test_images_are_made_in_bounds_or_refused():
    random = np.random.default_rng(2)
    for _ in range(NUM_CASES // 10):
        n, height, width = int(random.integers(0, 4)), *random.integers(1, 20, 2).tolist()
        rows, columns = height + int(random.integers(0, 5)), width + int(random.integers(0, 5))
        crops = Memory(n * height * width * 3, np.uint8, 0, random.integers(0, 256, n * height * width * 3))
        mean = Memory(rows * columns * 3, np.float32, 4, random.uniform(0, 255, rows * columns * 3))
        top_left = np.stack([random.integers(0, rows - height + 1, n), random.integers(0, columns - width + 1, n)], 1)
        wrong = str(random.choice(["", "", "", "offset", "size", "mean", "pointer"]))
        if wrong == "offset" and n:
            top_left[-1, int(random.integers(0, 2))] = int(random.choice([-1, 100, 2**40]))
        offsets = Memory(2 * n, np.int64, 0, top_left)
        flips = Memory(n, np.uint8, 0, random.integers(0, 2, n))
        bfloat16 = bool(random.integers(0, 2))
        images = Memory(n * height * width * 3, np.uint16 if bfloat16 else np.float32)
        record = native._Images(
            crops.address, None, None if wrong == "pointer" else mean.address, offsets.address, flips.address,
            -5 if wrong == "size" else height, width, rows, width - 1 if wrong == "mean" else columns,
            (ctypes.c_float * 3)(1, 1, 1), 1, bfloat16, images.address,
        )  # fmt: skip
        status = functions().alexnet_images(ctypes.byref(record), n, int(random.choice(list(instruction_sets()))),
                                            SEVERAL, 1)  # fmt: skip
        impossible = wrong in ("size", "mean") or (wrong in ("offset", "pointer") and n > 0)
        assert status == (IMPOSSIBLE if impossible else DONE), (wrong, n)


def axis_of(random, length, rising=True):
    taps, size = int(random.integers(1, min(length, 8) + 1)), int(random.integers(1, 20))
    first = random.integers(0, length - taps + 1, size)
    first = np.sort(first) if rising else first
    weights = random.integers(-1000, 2**22 // taps, (size, taps))
    return [Memory(size, np.int32, 0, first), Memory(size * taps, np.int32, 0, weights), size, taps, length]


def test_pixels_are_cut_and_resampled_in_bounds_or_refused():
    random = np.random.default_rng(3)
    for _ in range(NUM_CASES // 4):
        rows, columns = random.integers(1, 40, 2).tolist()
        image = random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        source = Memory(image.size, np.uint8, 0, image)
        isa = int(random.choice(list(instruction_sets())))
        height, width = int(random.integers(1, rows + 1)), int(random.integers(1, columns + 1))
        top, left = int(random.integers(0, rows - height + 1)), int(random.integers(0, columns - width + 1))
        reflect, target = bool(random.integers(0, 2)), Memory(3 * height * width, np.uint8)
        arguments = [rows, columns, 3 * columns, top, left, height, width]
        wrong = int(random.choice([0, 1, 3, 4, 5, 6])) if random.random() < 0.3 else None
        if wrong is not None:
            arguments[wrong] = int(random.choice([-1, 2**21, 2**40]))
        status = functions().alexnet_crop(source.address, *arguments, reflect, target.address, isa)
        assert status == (DONE if wrong is None else IMPOSSIBLE), arguments
        if status == DONE:
            part = image[top : top + height, left : left + width]
            assert np.array_equal(target.values.reshape(height, width, 3), part[:, ::-1] if reflect else part)

        axes = [axis_of(random, columns, rising=False), axis_of(random, rows)]
        is_wrong = random.random() < 0.4
        if is_wrong:
            axis, field = axes[int(random.integers(0, 2))], int(random.integers(0, 5))
            if field < 2:  # a value beyond the image, or weights whose sum leaves 32 bits
                count = axis[2] * (axis[3] if field else 1)
                axis[field] = Memory(count, np.int32, 0, np.full(count, 2**30 if field else axis[4]))
            else:
                axis[field] = int(random.choice([0, -1, 2**21, 2**40]))
        records = [pixels._Axis(first.address, weights.address, *sizes) for first, weights, *sizes in axes]
        target = Memory(3 * (400 if is_wrong else axes[0][2] * axes[1][2]), np.uint8)
        addresses = [ctypes.addressof(record) for record in records]
        status = functions().alexnet_resample(source.address, 3 * columns, *addresses, target.address, isa)
        assert status == (IMPOSSIBLE if is_wrong else DONE), axes


@pytest.mark.parametrize("isa", [-1, 3, 2**31 - 1])
def test_an_instruction_set_that_is_not_there_is_refused(isa):
    record = draw_record(np.random.default_rng(4))
    maps = Memory(2**12, np.float32)
    block = c_block({**record, "norm": [0, 1, 0, 0, 1], "spatial": [0, 1, 0, 0, 1]})
    arguments = (maps.address, maps.address, None, isa, SEVERAL, 1)
    assert functions().alexnet_block_forward(ctypes.byref(block), 0, 0, *arguments) == IMPOSSIBLE


def test_python_raises_what_the_kernels_refuse():
    maps = torch.randn(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    for towers, size in ((-1, 5), (3, 5), (0, 5), (1, -1)):
        with pytest.raises(ValueError):
            torch.ops.alexnet.block(maps, False, [size, 1.0, 0.75, 1.0, towers], [], [], False)
    for pool in ([0, 2, 0], [-1, 2, 0], [-3, 2, 0], [3, -2, 0], [16, 1, 0]):
        with pytest.raises((ValueError, RuntimeError)):
            torch.ops.alexnet.block(maps, False, [], [], pool, False)
    for spatial in (-1, 2):
        with pytest.raises(ValueError):
            torch.ops.alexnet.block(maps, False, [], [spatial, 1.0, 0.75, 1.0], [], False)

"""What is chosen for a machine, and that a recipe can choose otherwise."""

import platform
from pathlib import Path

import pytest
import torch

from alexnet.config import RuntimeConfig
from alexnet.errors import UserError
from alexnet.ops import native
from alexnet.runtime import device as device_module
from alexnet.runtime.device import (
    Execution,
    choose_execution,
    configure,
    describe_choice,
)
from alexnet.runtime.process_settings import keep_freed_memory, restored_settings, return_freed_memory

CPU = torch.device("cpu")


@pytest.fixture
def fast_bfloat16(monkeypatch, request):
    monkeypatch.setattr(device_module, "has_fast_bfloat16", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("fast_bfloat16", [True, False], indirect=True)
def test_precision_follows_the_processor_and_the_recipe_can_overrule_it(fast_bfloat16):
    expected = torch.bfloat16 if fast_bfloat16 else torch.float32
    assert choose_execution(RuntimeConfig(device="cpu")) == Execution(CPU, expected, "direct")
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        assert choose_execution(RuntimeConfig(device="cpu", precision=name)).dtype == dtype


def test_conv1_is_taken_by_blocks_of_pixels_on_cuda_or_on_request(monkeypatch):
    monkeypatch.setattr(device_module, "choose_device", lambda name: torch.device(name))
    monkeypatch.setattr(device_module, "has_fast_bfloat16", lambda device: True)
    assert choose_execution(RuntimeConfig(device="cuda")).conv1 == "space_to_depth"
    assert choose_execution(RuntimeConfig(device="cuda", conv1="direct")).conv1 == "direct"
    assert choose_execution(RuntimeConfig(device="cpu", conv1="space_to_depth")).conv1 == "space_to_depth"


def test_kernels_can_be_left_unused():
    with restored_settings():
        configure(RuntimeConfig(device="cpu", kernels="plain"))
        assert not native.AVAILABLE
        assert "no compiled kernels" in describe_choice(Execution(CPU, torch.float32, "direct"))
        configure(RuntimeConfig(device="cpu"))
        assert (native._library is not None) == native.AVAILABLE


def test_the_choice_is_told_in_one_line():
    line = describe_choice(Execution(CPU, torch.bfloat16, "space_to_depth"))
    assert "\n" not in line
    for part in (
        "bfloat16 activations",
        "float32 weights",
        "channels-last",
        "space-to-depth",
        "threads",
        native.describe(),
    ):
        assert part in line


def test_a_device_that_is_not_there_is_refused_with_the_ones_that_may_be():
    with pytest.raises(UserError, match="auto, cpu, cuda or mps"):
        choose_execution(RuntimeConfig(device="quantum"))


def resident_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_what_a_run_has_freed_is_given_back_at_its_end():
    keep_freed_memory()
    pieces = [torch.ones(2**18) for _ in range(400)]  # 1 MB each
    last = torch.ones(2**18)  # keeps the heap from being cut off at its end
    del pieces
    before = resident_megabytes()
    return_freed_memory()
    assert resident_megabytes() < before - 200
    assert last.sum() == 2**18

"""A call puts back what it has changed in the process, in whatever state it found it."""

import os
import platform
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from process_snapshot import BACKENDS, PRECISIONS, float32_settings, process_snapshot

from alexnet.config import RuntimeConfig
from alexnet.data import shards
from alexnet.runtime.device import configure
from alexnet.runtime.process_settings import exact_float32, restored_settings

CHANGING = RuntimeConfig(device="cpu", deterministic=True, num_threads=3, kernels="plain")


@pytest.fixture(autouse=True)
def _leave_nothing_behind():
    with restored_settings():
        yield


def change(name, value):
    """What a user may do, with torch's new set of functions or with its old one."""
    if name in PRECISIONS:
        PRECISIONS[name].fp32_precision = value
    elif name == "old matmul":
        BACKENDS.cuda.matmul.allow_tf32 = value
    elif name == "old cudnn":
        BACKENDS.cudnn.allow_tf32 = value
    else:
        torch.set_float32_matmul_precision(value)


OF_CUDA = [name for name in PRECISIONS if "mkldnn" not in name]
CHANGES = st.one_of(
    st.tuples(st.sampled_from(["old matmul", "old cudnn"]), st.booleans()),
    st.tuples(st.just("old precision"), st.sampled_from(["highest", "high", "medium"])),
    st.tuples(st.sampled_from(OF_CUDA), st.sampled_from(["ieee", "tf32", "none"])),
    st.tuples(
        st.sampled_from([name for name in PRECISIONS if "mkldnn." in name]),
        st.sampled_from(["ieee", "tf32", "bf16", "none"]),
    ),
)


@given(st.lists(CHANGES, max_size=5))
def test_every_state_of_float32_is_put_back_and_does_not_reach_into_a_run(changes):
    with restored_settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the old functions deprecated
        for name, value in changes:
            change(name, value)
        before = float32_settings()
        with restored_settings():
            configure(RuntimeConfig(device="cpu"))
            assert {holder.fp32_precision for holder in PRECISIONS.values()} <= {"none", "ieee"}
            assert not BACKENDS.cuda.matmul.allow_tf32 and not BACKENDS.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert float32_settings() == before
        with exact_float32():
            assert BACKENDS.cudnn.conv.fp32_precision in ("none", "ieee")
        assert float32_settings() == before


def test_the_new_settings_of_torch_can_be_used_afterwards():
    with restored_settings():
        configure(CHANGING)
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "tf32"
    assert (BACKENDS.cudnn.fp32_precision, BACKENDS.cudnn.conv.fp32_precision) == ("none", "tf32")
    BACKENDS.cuda.matmul.fp32_precision = "none"
    BACKENDS.fp32_precision = "ieee"
    assert BACKENDS.cuda.matmul.fp32_precision == "ieee" and BACKENDS.cuda.matmul.allow_tf32 is False


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("mode", ["default", "warn"])
def test_all_settings_are_put_back_however_the_block_ends(monkeypatch, ending, mode):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.set_deterministic_debug_mode(mode)
    BACKENDS.cudnn.benchmark = mode == "warn"
    before = process_snapshot()

    @restored_settings()
    def call():
        configure(CHANGING)
        shards._allow_more_files()
        assert torch.get_num_threads() == 3 and os.environ["CUBLAS_WORKSPACE_CONFIG"]
        if ending is not None:
            raise ending

    for _ in range(2):
        if ending is None:
            call()
        else:
            with pytest.raises(ending):
                call()
        assert process_snapshot() == before


def test_what_the_user_has_set_is_kept(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with restored_settings():
        configure(CHANGING)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no such limit")
def test_the_limit_of_open_files_is_put_back_where_there_is_room():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(os.listdir("/dev/fd")) + 20
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        with restored_settings():
            shards._allow_more_files()
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > low
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == low
        with restored_settings():
            shards._allow_more_files()
            files = [os.open(os.devnull, os.O_RDONLY) for _ in range(30)]
        # With the old limit no other file could be opened now.
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > low
        for file in files:
            os.close(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_calls_that_overlap_in_threads_leave_what_the_first_one_found():
    BACKENDS.cudnn.benchmark = False
    entered, first_is_over = threading.Event(), threading.Event()

    def second():
        with restored_settings():
            BACKENDS.cudnn.benchmark = True
            entered.set()
            assert first_is_over.wait(20)

    thread = threading.Thread(target=second)
    with restored_settings():
        BACKENDS.cudnn.benchmark = True
        thread.start()
        assert entered.wait(20)
    assert BACKENDS.cudnn.benchmark  # the second call still needs it
    first_is_over.set()
    thread.join()
    assert not BACKENDS.cudnn.benchmark


MEMORY = """
from pathlib import Path
import torch
from alexnet.runtime.process_settings import keep_freed_memory, restored_settings

def kept(megabytes):
    block = torch.ones(megabytes * 2**18)
    full = resident()
    del block
    return megabytes - (full - resident())

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024

with restored_settings():
    keep_freed_memory()
    print(kept(100))
print(kept(200))  # more than what the heap has kept, which would be used first
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_memory_is_returned_to_the_system_again_afterwards():
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    inside, afterwards = map(float, result.stdout.split())
    assert inside > 90 and afterwards < 20

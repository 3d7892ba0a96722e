"""Two machines, as two network namespaces: they train together, their link is cut, and the job ends with a message."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from jobs import Job

MACHINES = ("alexnet-test-a", "alexnet-test-b")
ADDRESSES = ("10.77.77.1", "10.77.77.2")
SETTINGS = (
    "model.name=cifar_quick",
    "data.image_size=32",
    "train.epochs=1000",
    "train.evaluate_every_epochs=1000",
    "train.checkpoint_minutes=0",
    'runtime.precision="float32"',
    "runtime.num_threads=1",
    "runtime.num_workers=1",
)
TIMEOUT_SECONDS = 9


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


def can_make_namespaces():
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    made = ip("netns", "add", "alexnet-test-probe", check=False).returncode == 0
    ip("netns", "delete", "alexnet-test-probe", check=False)
    return made


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_make_namespaces(), reason="needs root and iproute2, to make network namespaces"),
]


@pytest.fixture
def machines():
    """Two namespaces with a cable between them; the names of both ends are eth0."""
    for machine in MACHINES:
        ip("netns", "delete", machine, check=False)
        ip("netns", "add", machine)
    try:
        ip("link", "add", "eth0", "netns", MACHINES[0], "type", "veth", "peer", "name", "eth0", "netns", MACHINES[1])
        for machine, address in zip(MACHINES, ADDRESSES, strict=True):
            # torchrun waits for its store until the kernel gives the connection up: by default a quarter of an hour.
            retries = ["sh", "-c", "echo 5 > /proc/sys/net/ipv4/tcp_retries2"]
            subprocess.run(["ip", "netns", "exec", machine, *retries], check=True)
            ip("-n", machine, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", machine, "link", "set", device, "up")
        yield MACHINES
    finally:
        for machine in MACHINES:
            ip("netns", "delete", machine, check=False)


def agent(machine, address, output):
    """A torchrun in a namespace, as on a machine of its own, with one process."""
    # A machine's name would tell it whether it is the first; here both have the same.
    is_first = int(machine == MACHINES[0])
    torchrun = [
        *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
        *("--rdzv-id=1", f"--rdzv-endpoint={ADDRESSES[0]}:29517", f"--local-addr={address}", "--max-restarts=0"),
        f"--rdzv-conf=is_host={is_first}",
    ]
    timeout = f"parallel.timeout_minutes={TIMEOUT_SECONDS / 60}"
    arguments = ["-m", "alexnet", "train", "folder", "--data", "shapes:32", "--output", str(output), *SETTINGS, timeout]
    inside = ["ip", "netns", "exec", machine, "env", "GLOO_SOCKET_IFNAME=eth0", f"MACHINE={machine}", sys.executable]
    return Job([*inside, *torchrun, *arguments], output, name=machine)


def test_a_cut_link_ends_the_job_with_a_message(machines, tmp_path):
    output = tmp_path / "run"
    jobs = [agent(*each, output) for each in zip(machines, ADDRESSES, strict=True)]
    try:
        jobs[0].wait_for_step(20)
        ip("-n", machines[0], "link", "set", "eth0", "down")
        began = time.monotonic()
        codes = [job.finish(180) for job in jobs]
        print(f"ended after {time.monotonic() - began:.0f} s with {codes}")
    finally:
        for job in jobs:
            job.kill_all()
    assert all(codes), "the job cannot have done all its steps"
    text = jobs[0].text()
    assert "The processes have lost each other" in text and "the same command goes on from the last checkpoint" in text
    assert (output / "checkpoints" / "last.pt").is_file()

"""What the machine has, and what it lacks for training."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from alexnet.data.squares import free_memory_bytes
from alexnet.doctor.findings import Finding, finding
from alexnet.ops import native
from alexnet.runtime.device import choose_device, has_fast_bfloat16
from alexnet.runtime.environment import describe_environment

_LITTLE_MEMORY = 3 * 2**30
_LITTLE_DISK = 2 * 2**30
_NVIDIA = Path("/proc/driver/nvidia/version")


def inspect_machine() -> list[Finding]:
    """One note with what there is, and a finding for what is missing."""
    device = choose_device("auto")
    environment = describe_environment()
    memory, disk = free_memory_bytes(), shutil.disk_usage(Path.cwd()).free
    name, threads, cores = "this machine", torch.get_num_threads(), os.cpu_count() or 1
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    rows = [
        f"processor: {environment['processor']}, {cores} cores, torch uses {threads} threads",
        f"device: {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type}",
        f"fast bfloat16: {'yes' if has_fast_bfloat16(device) else 'no'}",
        f"memory: {memory / 2**30:.1f} GB free",
        f"disk: {disk / 2**30:.1f} GB free in the current folder",
        f"kernels: {native.describe()}",
        f"torch {torch.__version__} ({build}), Python {environment['python']}, alexnet {environment['alexnet']}",
    ]
    findings = [finding("machine", name, f"Training would run on {device.type}.", rows)]
    if not has_fast_bfloat16(device):
        findings.append(finding("no-fast-bfloat16", name, f"The {device.type} has no fast bfloat16."))
    if device.type == "cpu" and not native.AVAILABLE:
        findings.append(finding("kernels-missing", name, f"The CPU computes with {native.describe()}."))
    if memory < _LITTLE_MEMORY:
        findings.append(finding("little-memory", name, f"{memory / 2**30:.1f} GB of memory are free."))
    if disk < _LITTLE_DISK:
        findings.append(finding("little-disk", name, f"{disk / 2**30:.1f} GB are free in the current folder."))
    if device.type == "cpu" and threads < cores / 2:
        findings.append(finding("few-threads", name, f"torch uses {threads} threads of {cores} cores."))
    if device.type == "cpu" and _NVIDIA.exists():
        findings.append(finding("cuda-not-used", name, f"torch is built for {build}; the NVIDIA driver is loaded."))
    return findings

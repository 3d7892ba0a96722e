"""`alexnet benchmark train` and `alexnet benchmark inference`: how fast it is here, beside the alternatives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from alexnet.benchmark.baselines import choose_baselines
from alexnet.benchmark.job import Job, Task
from alexnet.benchmark.measure import measure
from alexnet.benchmark.report import BenchmarkReport, Measurement, ratio, ratio_spread
from alexnet.commands.benchmark_output import check_output, tell
from alexnet.errors import UserError
from alexnet.models import get_architecture
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Progress
from alexnet.runtime.device import choose_device, choose_precision
from alexnet.runtime.text import print_lines

_PRECISIONS = ("auto", "bfloat16", "float32")


def benchmark_command(
    task: Task,
    *,
    model: str,
    batch_size: int,
    precision: str,
    device: str,
    baselines: str | None,
    rounds: int,
    threads: int | None,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure, print, and write the record to `output`. Raises UserError for what the person can mend."""
    job = _job(task, model=model, batch_size=batch_size, precision=precision, device=device, threads=threads)
    _at_least_one("--rounds", rounds)
    chosen, left_out = choose_baselines(baselines, job)
    check_output(output)
    with Progress("silent" if quiet else "auto") as progress:
        report = measure(job, chosen, rounds=rounds, progress=progress)
    report = replace(report, left_out=[*left_out, *report.left_out])
    tell(report.to_dict(), lambda: _print(report), output, as_json=as_json)


def _job(task: Task, *, model: str, batch_size: int, precision: str, device: str, threads: int | None) -> Job:
    get_architecture(model)
    _at_least_one("--batch-size", batch_size)
    if threads is not None:
        _at_least_one("--threads", threads)
    if precision not in _PRECISIONS:
        raise UserError(f"--precision {precision} is none that is known; it is one of {', '.join(_PRECISIONS)}.")
    place = choose_device(device)
    chosen: Literal["bfloat16", "float32"] = (
        "bfloat16" if str(choose_precision(precision, place)) == "torch.bfloat16" else "float32"
    )
    return Job(task, model, batch_size, chosen, str(place), threads)


def _at_least_one(option: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{option} {value} is too small; it is at least 1.")


def _print(report: BenchmarkReport) -> None:
    job, environment = report.job, report.environment
    what = "training" if job.task == "train" else "inference"
    where = environment["devices"][0] if job.device.startswith("cuda") else environment["processor"]
    blocks = _count(report.rounds, "block")
    print_lines(f"{job.model}, {what}, batch {job.batch_size}, on random images; median of {blocks} taken in turn")
    print_lines(
        f"{where}, {_count(environment['cores'], 'core')}, {_count(report.ours.ready.threads, 'thread')}, torch "
        f"{environment['versions']['torch']}, {job.precision} activations, float32 weights, channels-last"
    )
    everyone = [report.ours, *report.baselines]
    print_table(
        ["", "images/s", "lowest to highest", "ours is", "in a round", "peak memory", "settings"],
        [_speed_row(report.ours, other) for other in everyone],
        numeric=["images/s", "lowest to highest", "ours is", "in a round", "peak memory"],
    )
    phases = list(report.ours.phases_ms)
    print_table(
        ["milliseconds", "step", *phases, "first step"],
        [_phase_row(other, phases) for other in everyone],
        numeric=["step", *phases, "first step"],
    )
    limits = report.limits
    print_lines(
        f"Hardware limit: {_scaled(limits.matmul_flops_per_second)}FLOP/s in {job.precision} matrix products, "
        f"{limits.copy_bytes_per_second / 1e9:.1f} GB/s of copying. At {report.flops_per_image / 1e9:.3g} GFLOP an "
        f"image ours reaches {report.share_of_matmul:.1%} of the matrix products."
    )
    for item in report.left_out:
        print_lines(f"Left out: {item.name}: {item.reason}.")


def _speed_row(ours: Measurement, other: Measurement) -> list[object]:
    low, high = other.spread
    memory = other.peak_memory_bytes
    row: list[Any] = [other.name, _rate(other.images_per_second), f"{_rate(low)} to {_rate(high)}", None, None]
    if other is not ours:
        least, most = ratio_spread(ours, other)
        row[3:] = [f"{ratio(ours, other):.2f} x", f"{least:.2f} to {most:.2f}"]
    return [*row, None if memory is None else f"{memory / 1e9:.2f} GB", other.ready.settings]


def _phase_row(other: Measurement, phases: list[str]) -> list[object]:
    parts = [f"{other.phases_ms[name]:.1f}" if name in other.phases_ms else None for name in phases]
    return [other.name, f"{other.step_ms:.1f}", *parts, f"{1000 * other.ready.first_step_seconds:.0f}"]


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.0f}" if images_per_second >= 100 else f"{images_per_second:.1f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _scaled(number: float) -> str:
    return f"{number / 1e12:.2f} T" if number >= 1e12 else f"{number / 1e9:.1f} G"

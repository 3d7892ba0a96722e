"""`alexnet benchmark scaling`: what sharing a step among processes costs on this machine, and writing checkpoints."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet.benchmark.machine import describe_machine
from alexnet.benchmark.scaling import Saving, ScalingJob, Way, measure_saving, measure_scaling
from alexnet.commands.benchmark_output import check_output, machine_line, tell
from alexnet.config import RuntimeConfig
from alexnet.errors import UserError
from alexnet.models import get_architecture
from alexnet.models.architecture import minimum_image_size
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Progress
from alexnet.runtime.device import choose_execution
from alexnet.runtime.text import print_lines


def benchmark_scaling_command(
    *,
    model: str,
    image_size: int | None,
    batch_size: int,
    precision: str,
    processes: int,
    rounds: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure, print, and write the record to `output`. Raises UserError for what the person can mend."""
    smallest = minimum_image_size(get_architecture(model))
    side = smallest if image_size is None else image_size
    if side < smallest:
        raise UserError(f"--image-size {side} is too small for {model}; the smallest is {smallest}.")
    if batch_size < processes:
        raise UserError(f"--batch-size {batch_size} leaves some of {processes} processes without an image.")
    check_output(output)
    if precision == "auto":
        precision = str(choose_execution(RuntimeConfig(device="cpu")).dtype).removeprefix("torch.")
    job = ScalingJob(model, side, batch_size, precision, processes, rounds)
    environment = describe_machine()
    with (
        tempfile.TemporaryDirectory(prefix="alexnet-benchmark-") as folder,
        Progress("silent" if quiet else "auto") as progress,
    ):
        ways = measure_scaling(job, Path(folder), progress)
        saving = measure_saving(model, batch_size, precision, Path(folder), progress)
    record = _record(job, ways, saving, environment)
    tell(record, lambda: _print(job, ways, saving, environment), output, as_json=as_json)


def _record(job: ScalingJob, ways: list[Way], saving: Saving, environment: dict[str, Any]) -> dict[str, Any]:
    return {
        **asdict(job),
        "ways": [
            {**asdict(way), "images_per_second": way.images_per_second, "ratio": _ratio(way, ways)} for way in ways
        ],
        "saving": {**asdict(saving), "ratio": saving.ratio},
        "environment": environment,
    }


def _ratio(way: Way, ways: list[Way]) -> float:
    """Of the images a second to those of one process."""
    return way.images_per_second / ways[0].images_per_second


def _print(job: ScalingJob, ways: list[Way], saving: Saving, environment: dict[str, Any]) -> None:
    print_lines(
        f"{job.model} at {job.image_size} px, batch {job.batch_size}, {job.precision}, gloo; median of {job.rounds} "
        "blocks taken in turn"
    )
    print_lines(machine_line(environment))
    rows: list[list[object]] = [
        [
            way.name,
            f"{way.images_per_second:,.1f}",
            f"{min(way.rates):,.1f} to {max(way.rates):,.1f}",
            f"{_ratio(way, ways):.2f}",
        ]
        for way in ways
    ]
    columns = ["", "images/s", "lowest to highest", "of one process"]
    print_table(columns, rows, numeric=columns[1:])
    print_lines(
        f"Checkpoints of {saving.checkpoint_mb:,.0f} MB, written beside the training: the longest step is "
        f"{saving.longest_ms:,.0f} ms, {saving.ratio:.2f} times the median of the others, {saving.median_ms:,.0f} ms "
        f"(of which the longest is {saving.longest_without_ms:,.0f} ms)."
    )

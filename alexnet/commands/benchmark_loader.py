"""`alexnet benchmark loader`: how fast images come, beside the other ways to load them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from alexnet.benchmark.job import CROP_SIZE, STORED_SIZE
from alexnet.benchmark.loading import LoadingReport, choose_contestants, lay_out_data, measure_loading
from alexnet.commands.benchmark_output import check_output, machine_line, tell
from alexnet.errors import UserError
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Progress
from alexnet.runtime.text import print_lines


def benchmark_loader_command(
    *,
    data: str | None,
    num_images: int,
    batch_size: int,
    num_workers: int | None,
    baselines: str | None,
    rounds: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure, print, and write the record to `output`. Raises UserError for what the person can mend."""
    workers = os.cpu_count() or 1 if num_workers is None else num_workers
    for option, value in (("--rounds", rounds), ("--batch-size", batch_size), ("--images", num_images)):
        if value < 1:
            raise UserError(f"{option} {value} is too small; it is at least 1.")
    if workers < 0:
        raise UserError(f"--workers {workers} is too small; it is at least 0.")
    check_output(output)
    with (
        tempfile.TemporaryDirectory(prefix="alexnet-benchmark-") as folder,
        Progress("silent" if quiet else "auto") as progress,
    ):
        job, found = lay_out_data(
            data, num_images, Path(folder), batch_size=batch_size, num_workers=workers, progress=progress
        )
        if batch_size > found:
            raise UserError(f"--batch-size {batch_size} is more than the {found} images; lower it.")
        chosen, left_out = choose_contestants(baselines, job)
        report = measure_loading(job, chosen, rounds=rounds, num_images=found, progress=progress)
    report = replace(report, left_out=[*left_out, *report.left_out])
    tell(report.to_dict(), lambda: _print(report), output, as_json=as_json)


def _print(report: LoadingReport) -> None:
    job, environment = report.job, report.environment
    print_lines(
        f"{report.num_images} images, {STORED_SIZE} px squares, {CROP_SIZE} px crops reflected at random, batch "
        f"{job.batch_size}, {job.num_workers} threads or processes; median of {report.rounds} blocks taken in turn"
    )
    print_lines(machine_line(environment))
    baselines = [other for other in report.contestants if not other.name.startswith("ours")]
    rows: list[list[object]] = []
    for one in report.contestants:
        per_core = one.images_per_core_second
        row: list[object] = [
            one.name,
            f"{one.images_per_second:,.0f}",
            f"{min(one.rates):,.0f} to {max(one.rates):,.0f}",
            None if per_core is None else f"{per_core:,.0f}",
        ]
        for other in baselines:
            by_clock, by_cores = report.ratio(one, other)
            cores = "" if by_cores is None else f" ({by_cores:.2f})"
            row.append(f"{by_clock:.2f}{cores}" if one.name.startswith("ours") else None)
        rows.append(row)
    columns = ["", "images/s", "lowest to highest", "per core", *(f"over {other.name}" for other in baselines)]
    print_table(columns, rows, numeric=columns[1:])
    print_lines(
        "per core: images over processor time of all threads and processes; ratios by the clock, and so by cores."
    )
    for item in report.left_out:
        print_lines(f"Left out: {item.name}: {item.reason}.")

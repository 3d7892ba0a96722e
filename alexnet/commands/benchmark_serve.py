"""`alexnet benchmark serve`: how many images a second the server answers, how soon, and what batching gives."""

from __future__ import annotations

import tempfile
from pathlib import Path

from alexnet.benchmark.serving import ServingJob, ServingReport, measure_serving
from alexnet.benchmark.untrained import save_untrained
from alexnet.commands.benchmark_output import check_output, machine_line, tell
from alexnet.errors import UserError
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Progress
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import load_checkpoint


def benchmark_serve_command(
    checkpoint: Path | None,
    *,
    model: str,
    clients: str,
    batch_size: int,
    max_wait_ms: float,
    rounds: int,
    seconds: float,
    memory_requests: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure, print, and write the record to `output`. Raises UserError for what the person can mend."""
    numbers = _numbers(clients)
    check_output(output)
    with (
        tempfile.TemporaryDirectory(prefix="alexnet-benchmark-") as folder,
        Progress("silent" if quiet else "auto") as progress,
    ):
        if checkpoint is None:
            path, name = save_untrained(Path(folder) / "untrained.pt", model), f"{model}, untrained"
        else:
            path, name = checkpoint, load_checkpoint(checkpoint).architecture.name
        job = ServingJob(str(path), numbers, batch_size, max_wait_ms, rounds, seconds, memory_requests)
        report = measure_serving(job, name, progress)
    tell(report.to_dict(), lambda: _print(report), output, as_json=as_json)


def _numbers(clients: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in clients.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or max(numbers) > 1000:
        raise UserError(f"--clients {clients} must be numbers from 1 to 1000 with commas between, as in 1,8,64.")
    return numbers


def _print(report: ServingReport) -> None:
    job, environment = report.job, report.environment
    print_lines(
        f"{report.model}; photographs of 500 x 375 px as JPEG over loopback; clients on the same machine; median of "
        f"{job.rounds} blocks of {job.seconds:g} s taken in turn"
    )
    print_lines(machine_line(environment))
    rows: list[list[object]] = []
    for clients in job.clients:
        for contestant in report.contestants:
            is_first = contestant is report.contestants[0]
            rates = [block.per_second for block in contestant.blocks[clients]]
            rows.append(
                [
                    clients,
                    contestant.name,
                    f"{contestant.rate(clients):.1f}",
                    f"{min(rates):.1f} to {max(rates):.1f}",
                    f"{contestant.latency_ms(clients, 0.5):.0f}",
                    f"{contestant.latency_ms(clients, 0.95):.0f}",
                    f"{report.gain(clients):.2f} x" if is_first else None,
                ]
            )
    columns = ["clients", "", "images/s", "lowest to highest", "p50 ms", "p95 ms", "by batching"]
    print_table(columns, rows, numeric=[name for name in columns if name])
    print_lines(f"batching: at most {job.batch_size} images a pass, waiting at most {job.max_wait_ms:g} ms.")
    if report.memory_bytes:
        first, *rest = report.memory_bytes
        settled = rest[len(rest) // 10 :]
        print_lines(
            f"Memory of server and decoders: {first / 1e6:.0f} MB before, then {min(settled) / 1e6:.0f} to "
            f"{max(settled) / 1e6:.0f} MB over {job.memory_requests:,} requests, {rest[-1] / 1e6:.0f} MB at the end."
        )

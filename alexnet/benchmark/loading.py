"""The benchmark of loading from beginning to end: the data in three forms, warm-up, rounds of one block each."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alexnet.benchmark.crew import Crew, Worker, WorkerError
from alexnet.benchmark.job import CROP_SIZE, STORED_SIZE, LeftOut, LoadingJob
from alexnet.benchmark.loading_bench import Block, Ready
from alexnet.benchmark.loading_contestants import CONTESTANTS, why_impossible
from alexnet.benchmark.machine import describe_machine
from alexnet.data.photographs import draw_folder
from alexnet.data.prepare import Request, prepare_data_set
from alexnet.data.prepared import is_prepared, read_description
from alexnet.errors import RunError, UserError
from alexnet.reporting.progress import Progress, format_seconds

_PREPARE_SECONDS = 600.0
_MARGIN_SECONDS = 60.0
_MARGIN_FACTOR = 10.0
"""A block may take so many times what was expected, and the margin besides."""


@dataclass
class Loading:
    """A contestant and its blocks."""

    name: str
    batch_size: int
    ready: Ready
    worker: Worker
    blocks: list[Block] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Images per second of each block."""
        return [self.ready.batches_per_block * self.batch_size / block.seconds for block in self.blocks]

    @property
    def images_per_second(self) -> float:
        """The median over the blocks."""
        return statistics.median(self.rates)

    @property
    def images_per_core_second(self) -> float | None:
        """The median of images over the processor time of all threads and processes."""
        num_images = self.ready.batches_per_block * self.batch_size
        rates = [num_images / block.cpu_seconds for block in self.blocks if block.cpu_seconds]
        return statistics.median(rates) if rates else None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "name": self.name,
            "data": CONTESTANTS[self.name][0],
            "settings": CONTESTANTS[self.name][1],
            "images_per_second": self.images_per_second,
            "images_per_second_spread": [min(self.rates), max(self.rates)],
            "images_per_core_second": self.images_per_core_second,
        }


@dataclass
class LoadingReport:
    """The record of a benchmark of loading."""

    job: LoadingJob
    rounds: int
    num_images: int
    contestants: list[Loading]
    left_out: list[LeftOut]
    environment: dict[str, Any]

    @property
    def ours(self) -> Loading:
        """The one whose speed is the answer: from prepared JPEG, where that takes part."""
        return self.contestants[0]

    def ratio(self, one: Loading, other: Loading) -> tuple[float, float | None]:
        """How many times as fast one is as the other, by the clock and by processor time."""
        ours, theirs = one.images_per_core_second, other.images_per_core_second
        return one.images_per_second / other.images_per_second, ours / theirs if ours and theirs else None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        ratios = {
            f"{one.name}/{other.name}": dict(zip(("by_clock", "by_cores"), self.ratio(one, other), strict=True))
            for one in self.contestants
            if one.name.startswith("ours")
            for other in self.contestants
            if not other.name.startswith("ours")
        }
        return {
            "task": "loader",
            "images_per_second": self.ours.images_per_second,
            "images_per_core_second": self.ours.images_per_core_second,
            "batch_size": self.job.batch_size,
            "num_workers": self.job.num_workers,
            "num_images": self.num_images,
            "stored_size": STORED_SIZE,
            "crop_size": CROP_SIZE,
            "rounds": self.rounds,
            "statistic": f"median of {self.rounds} interleaved blocks",
            "contestants": [contestant.to_dict() for contestant in self.contestants],
            "ratios": ratios,
            "left_out": [asdict(item) for item in self.left_out],
            "environment": self.environment,
        }


def lay_out_data(
    data: str | None, num_images: int, folder: Path, *, batch_size: int, num_workers: int, progress: Progress
) -> tuple[LoadingJob, int]:
    """The job, with the images in each form that can be had, and their number.

    data: a prepared data set, which is measured as it is; or class folders, which are prepared in `folder`; None draws
    `num_images` photographs there. Raises UserError.
    """
    if data is not None and is_prepared(Path(data)):
        record = read_description(Path(data))
        if record["image_size"] != STORED_SIZE:
            raise UserError(f"{data} has squares of {record['image_size']} px; the benchmark is of {STORED_SIZE} px.")
        forms: dict[str, str | None] = {"originals": None, "jpeg": None, "raw": None}
        forms["raw" if record["encoding"] == "raw" else "jpeg"] = data
        return LoadingJob(**forms, batch_size=batch_size, num_workers=num_workers), _num_train(record)
    if data is None:
        progress.message(f"Drawing {num_images} photographs")
        originals = folder / "originals"
        draw_folder(originals, num_images)
    else:
        originals = Path(data)
        if not (originals / "train").is_dir():
            raise UserError(
                f"{data} is neither a prepared data set nor a folder with class folders in train/ and val/."
            )
    record = {}
    for encoding in ("raw", "jpeg"):
        request = Request(
            str(originals),
            folder / encoding,
            image_size=STORED_SIZE,
            encoding=encoding,
            # Several shards, so that every process of a baseline that reads whole shards has some.
            images_per_shard=max(1, num_images // (4 * max(1, num_workers))) if data is None else None,
            num_workers=num_workers,
        )
        record = prepare_data_set(request, progress)
    paths = {"originals": str(originals), "jpeg": str(folder / "jpeg"), "raw": str(folder / "raw")}
    return LoadingJob(**paths, batch_size=batch_size, num_workers=num_workers), _num_train(record)


def _num_train(record: dict[str, Any]) -> int:
    return int((record["splits"].get("train") or {"num_images": 0})["num_images"])


def choose_contestants(wanted: str | None, job: LoadingJob) -> tuple[list[str], list[LeftOut]]:
    """Who takes part, and who does not and why. wanted: names of baselines with commas, all, none; None is all."""
    ours = [name for name in CONTESTANTS if name.startswith("ours")]
    others = [name for name in CONTESTANTS if name not in ours]
    if wanted == "none":
        others = []
    elif wanted not in (None, "all"):
        asked = [name.strip() for name in wanted.split(",") if name.strip()]
        for name in asked:
            if name not in others:
                near = difflib.get_close_matches(name, others, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(f"there is no baseline {name!r}; {hint}the baselines are {', '.join(others)}.")
        others = [name for name in others if name in asked]
    reasons = {name: why_impossible(name, job) for name in (*ours, *others)}
    chosen = [name for name, reason in reasons.items() if reason is None]
    left_out = [LeftOut(name, reason) for name, reason in reasons.items() if reason is not None]
    return chosen, left_out


def measure_loading(
    job: LoadingJob, names: Sequence[str], *, rounds: int, num_images: int, progress: Progress
) -> LoadingReport:
    """Measure the named contestants in `rounds` rounds of one block each.

    One that fails is left out, with the reason. Raises RunError when none of ours is left.
    """
    contestants: list[Loading] = []
    left_out: list[LeftOut] = []

    def attempt(name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except WorkerError as error:
            contestants[:] = [entry for entry in contestants if entry.name != name]
            left_out.append(LeftOut(name, f"it failed: {error}"))
            progress.message(f"{name}: left out, it failed: {error}")

    with Crew(job) as crew:
        for name in names:
            progress.message(f"{name}: warming up")
            worker = crew.hire(name)

            def admit(name: str = name, worker: Worker = worker) -> None:
                ready = worker.ask("prepare", seconds=_PREPARE_SECONDS)
                contestants.append(Loading(name, job.batch_size, ready, worker))

            attempt(name, admit)
        seconds = rounds * sum(entry.ready.block_seconds for entry in contestants) * 1.5
        progress.message(f"Rounds: {rounds}; about {format_seconds(seconds)}")
        task = progress.start("Measuring", rounds, unit="rounds")
        for done in range(rounds):
            for entry in list(contestants):
                attempt(entry.name, lambda entry=entry: entry.blocks.append(_run_block(entry)))
            task.update(done + 1)
        task.finish()
        for entry in contestants:
            with suppress(WorkerError):
                entry.worker.ask("close", seconds=_MARGIN_SECONDS)
    if not any(entry.name.startswith("ours") for entry in contestants):
        raise RunError(f"nothing could be measured: {'; '.join(f'{item.name}: {item.reason}' for item in left_out)}")
    return LoadingReport(job, rounds, num_images, contestants, left_out, describe_machine())


def _run_block(entry: Loading) -> Block:
    seconds = _MARGIN_SECONDS + _MARGIN_FACTOR * entry.ready.block_seconds
    return entry.worker.ask("block", entry.ready.batches_per_block, seconds=seconds)

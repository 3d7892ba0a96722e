"""Progress of long work, on standard error: bars on a terminal, a plain line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn
from rich.progress import Progress as RichBars
from rich.progress import Task as RichTask
from rich.text import Text

from alexnet.runtime.text import print_lines, printable

Mode = Literal["auto", "bars", "plain", "silent"]
BAR_REFRESH_SECONDS = 0.1


class Task:
    """One counted piece of work; made by `Progress.start`.

    `update` is cheap enough for every step: it stores two references, and hands them on at most ten times a second.
    """

    def __init__(self, progress: Progress, description: str, total: int, done: int, unit: str, transient: bool) -> None:
        self.description, self.total, self.unit, self.transient = printable(description), total, unit, transient
        self.done = done
        self.fields: Mapping[str, float | str] = {}
        self.finished = False
        self._progress = progress
        self._clock = progress.clock
        self.started = self._clock()
        self._done_at_start = done
        self._next_report = self.started
        self.bar: TaskID | None = None
        self._progress.task_started(self)

    def update(self, done: int, fields: Mapping[str, float | str] | None = None) -> None:
        """`done` of `total` units are through. `fields`: numbers held by the host (not tensors), shown by name."""
        self.done = done
        if fields is not None:
            self.fields = fields
        now = self._clock()
        if now >= self._next_report:
            self._next_report = now + self._progress.report(self)

    def finish(self) -> None:
        """Say that the work is over, complete or not; calling it again does nothing."""
        if not self.finished:
            self.finished = True
            self._progress.task_finished(self)

    @property
    def rate(self) -> float | None:
        """Units per second since the start of this task; None while there is nothing to measure."""
        seconds = self._clock() - self.started
        return (self.done - self._done_at_start) / seconds if seconds > 0 and self.done > self._done_at_start else None

    def status(self) -> str:
        """Rate, fields and time left, as in "512 images/s  loss 1.203  error 31.2 %  2:10 left"."""
        parts = []
        rate = self.rate
        if rate is not None:
            parts.append(f"{_significant(rate)} {self.unit}/s")
        parts += [f"{name} {format_field(name, value)}" for name, value in self.fields.items()]
        if rate is not None and self.done < self.total:
            parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        return "  ".join(parts)


class Progress:
    """Shows tasks on standard error. Use as a context manager:

    with Progress() as progress:
        task = progress.start("Training", total=90_000)
        task.update(128, {"loss": 6.9, "error": 0.999})

    mode auto: bars where `stream` is a terminal, plain lines elsewhere. In plain mode a task prints its start, its
    end, and in between at most one line in `plain_seconds`; a transient task prints only the latter.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        *,
        stream: TextIO | None = None,
        plain_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream if stream is not None else sys.stderr
        if mode == "auto":
            mode = "bars" if _draws_bars(self.stream) else "plain"
        self.mode = mode
        self.clock = clock
        self._plain_seconds = plain_seconds
        self._last_line = clock()
        self._bars: RichBars | None = None
        self._tasks: list[Task] = []

    def __enter__(self) -> Progress:
        if self.mode == "bars":
            # Standard output stays untouched: with --json it carries the answer.
            bars = RichBars(
                TextColumn("{task.fields[work].description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                _StatusColumn(),
                console=Console(file=self.stream),
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=self.stream is sys.stderr,
            )
            bars.start()
            self._bars = bars
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in list(self._tasks):
            task.finish()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def start(
        self, description: str, total: int, *, done: int = 0, unit: str = "images", transient: bool = False
    ) -> Task:
        """Begin a task of `total` units of which `done` were through before. A transient task leaves no trace."""
        return Task(self, description, total, done, unit, transient)

    def counter(self, description: str, *, unit: str = "images", transient: bool = False) -> Callable[[int, int], None]:
        """A callback (done, total) that starts its task at the first call and finishes it when done == total.

        Calls after that change nothing, unless `done` has gone back: that begins the same work on something else.
        """
        task: Task | None = None
        began = self.clock()

        def count(done: int, total: int) -> None:
            nonlocal task, began
            if task is None or (task.finished and done < task.done):
                task = self.start(description, total, unit=unit, transient=transient)
                task.started = began  # what is done at the first call took time, too
            if task.finished:
                return
            task.update(done)
            if done >= total:
                task.finish()
                began = self.clock()

        return count

    def message(self, text: str) -> None:
        """One line above the bars; nothing when silent."""
        if self._bars is not None:
            self._bars.console.print(Text(printable(text)))
        elif self.mode != "silent":
            self._line(text)

    def task_started(self, task: Task) -> None:
        """Begin to show a task; called by the task."""
        self._tasks.append(task)
        if self._bars is not None:
            task.bar = self._bars.add_task("", total=task.total, completed=task.done, work=task)
        elif self.mode == "plain" and not task.transient:
            self._line(f"{task.description}: {task.total} {task.unit}")

    def report(self, task: Task) -> float:
        """Show where a task is; returns the seconds until it is worth being told again."""
        if self._bars is not None and task.bar is not None:
            self._bars.update(task.bar, completed=task.done)
            return BAR_REFRESH_SECONDS
        if self.mode == "plain":
            if task.done >= task.total:  # The line of its end says it.
                return 0.0
            wait = self._last_line + self._plain_seconds - self.clock()
            if wait > 0:
                return wait
            self._last_line = self.clock()
            share = 100 * task.done / task.total if task.total else 100.0
            self._line(f"{task.description}: {share:.0f} %  {task.status()}")
            return self._plain_seconds
        return float("inf")

    def task_finished(self, task: Task) -> None:
        """Show a task's end; called by the task."""
        self._tasks.remove(task)
        if self._bars is not None and task.bar is not None:
            self._bars.update(task.bar, completed=task.done)
            if task.transient:
                self._bars.remove_task(task.bar)
            else:
                self._bars.stop_task(task.bar)
        elif self.mode == "plain" and not task.transient:
            took = format_seconds(self.clock() - task.started)
            outcome = (
                f"{task.done} {task.unit}" if task.done >= task.total else f"stopped at {task.done} of {task.total}"
            )
            self._line(f"{task.description}: {outcome} in {took}  {task.status()}".rstrip())

    def _line(self, text: str) -> None:
        print_lines(text, stream=self.stream)
        self.stream.flush()


class _StatusColumn(ProgressColumn):
    """Formats on the display's own thread, so that the working thread never does."""

    def render(self, task: RichTask) -> Text:
        work: Task = task.fields["work"]
        return Text(work.status())


def format_field(name: str, value: float | str) -> str:
    """A number as a person reads it: names ending in "error" are fractions shown in percent."""
    if isinstance(value, str):
        return printable(value)
    if name.endswith("error"):
        return f"{100 * value:.1f} %"
    if isinstance(value, int):
        return str(value)
    return f"{value:.2g}" if name == "lr" else f"{value:.3f}" if name.endswith("loss") else f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """0:07, 12:34 or 1:02:03; 3 d 04:05 from a day on."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _significant(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _draws_bars(stream: TextIO) -> bool:
    return Console(file=stream).is_terminal and not Console(file=stream).is_dumb_terminal

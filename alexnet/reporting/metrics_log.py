"""The events of a run: metrics.jsonl, and TensorBoard and Weights & Biases where they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Protocol

from alexnet.config import LoggingConfig
from alexnet.errors import UserError


class Sink(Protocol):
    """Something that takes a run's numbers."""

    def write(self, event: dict[str, Any]) -> None:
        """Take one event: a flat mapping with `event` and `step`."""

    def close(self) -> None:
        """No more events come."""


class MetricsLog:
    """Appends events to metrics.jsonl, one JSON object a line, and passes them on to the other sinks.

    `keep_until_step`: a continued run drops the events after the step it continues from; they will come again.
    """

    def __init__(self, path: Path, sinks: list[Sink], *, keep_until_step: int | None) -> None:
        if keep_until_step is not None:
            _truncate(path, keep_until_step)
        self._file = path.open("a", encoding="utf-8")
        self._sinks = sinks

    def write(self, event: str, *, step: int, **values: Any) -> None:
        """Record one event; numbers that are not finite become null."""
        record = {"event": event, "step": step, **{key: _plain(value) for key, value in values.items()}}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.write(record)

    def close(self) -> None:
        """Close the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


class NoLog:
    """The log of a process that leaves the writing to another: takes everything, keeps nothing."""

    def write(self, event: str, *, step: int, **values: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_events(path: Path) -> list[dict[str, Any]]:
    """All complete events of a metrics.jsonl; a line that was cut off by a crash is left out."""
    events = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict) and "event" in event and "step" in event:
                events.append(event)
    return events


def _truncate(path: Path, last_step: int) -> None:
    # At step 0 nothing is continued: the run begins anew.
    events = read_events(path) if last_step > 0 else []
    kept = [event for event in events if event["step"] <= last_step and event["event"] != "end"]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def open_sinks(config: LoggingConfig, folder: Path, recipe: dict[str, Any], *, step: int = 0) -> list[Sink]:
    """The optional sinks of a recipe, for a run that goes on after `step`.

    Raises UserError when a library is missing, with the command that installs it.
    """
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard", step))
    if config.wandb:
        sinks.append(WandbSink(config.wandb_project, folder, recipe))
    return sinks


class TensorBoardSink:
    """Scalars for `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("logging.tensorboard needs its extra: pip install 'alexnet[tensorboard]'.") from None
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, event: dict[str, Any]) -> None:
        """Every number of the event, under `event/key`."""
        for key, value in _numbers(event).items():
            self._writer.add_scalar(key, value, event["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbSink:
    """A Weights & Biases run, continued when the run is; `WANDB_MODE=offline` keeps it on this machine."""

    def __init__(self, project: str, folder: Path, recipe: dict[str, Any]) -> None:
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError:
            raise UserError("logging.wandb needs its extra: pip install 'alexnet[wandb]'.") from None
        path = folder.resolve()
        run_id = hashlib.sha256(str(path).encode()).hexdigest()[:16]  # two folders may share a name
        self._run = wandb.init(
            project=project, name=path.name, id=run_id, dir=str(folder), config=recipe, resume="allow"
        )

    def write(self, event: dict[str, Any]) -> None:
        """Every number of the event, under `event/key`."""
        self._run.log(_numbers(event), step=event["step"])

    def close(self) -> None:
        """Upload what is left and close."""
        self._run.finish()


def _numbers(event: dict[str, Any]) -> dict[str, float]:
    return {
        f"{event['event']}/{key}": value
        for key, value in event.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key != "step"
    }

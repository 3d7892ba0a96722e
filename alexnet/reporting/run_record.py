"""A run's folder read back for its report: whatever is there, also of a run that is unfinished or damaged."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from alexnet.config import Recipe
from alexnet.errors import UserError
from alexnet.evaluation.report import EvaluationReport
from alexnet.reporting.metrics_log import read_events
from alexnet.reporting.report_images import ReportImages, load_report_images
from alexnet.visualize.kernels import Kernels, first_kernels

_Contents = TypeVar("_Contents")


@dataclass
class RunRecord:
    """The contents of a run's folder; None or empty where a file is missing."""

    folder: Path
    config: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationReport | None = None
    images: ReportImages | None = None
    kernels: Kernels | None = None
    problems: list[str] = field(default_factory=list)
    """Files that are there but cannot be read, and why."""

    @property
    def is_finished(self) -> bool:
        return bool(self.summary)

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind by step; where a continued run wrote a step twice, the later one counts."""
        by_step = {event["step"]: event for event in self.events if event["event"] == kind}
        return [by_step[step] for step in sorted(by_step)]

    @property
    def settings(self) -> dict[str, Any]:
        """config.toml as nested mappings; empty where it is missing or not TOML."""
        try:
            return tomllib.loads(self.config) if self.config is not None else {}
        except tomllib.TOMLDecodeError:
            return {}


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder. Raises UserError when it is not one."""
    if not folder.is_dir() or not any((folder / name).is_file() for name in ("config.toml", "metrics.jsonl")):
        raise UserError(f"{folder} is not the folder of a run; give one that `alexnet train --output` wrote.")
    record = RunRecord(folder)

    def read(name: str, reader: Callable[[Path], _Contents]) -> _Contents | None:
        path = folder / name
        if not path.is_file():
            return None
        try:
            return reader(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, UserError) as error:
            record.problems.append(f"{name}: {error}")
            return None

    record.config = read("config.toml", _read_text)
    record.environment = read("environment.json", _read_object) or {}
    record.events = read("metrics.jsonl", read_events) or []
    record.summary = read("summary.json", _read_object) or {}
    record.data = read("data.json", _read_object) or {}
    record.evaluation = read("evaluation.npz", EvaluationReport.load)
    record.images = read("report_images.npz", load_report_images)
    for file in _checkpoints(folder):
        if record.kernels is None:
            record.kernels = read(str(file.relative_to(folder)), _read_kernels)
    return record


def _checkpoints(folder: Path) -> list[Path]:
    """The run's network first; another file of it stands in for one that is damaged."""
    from alexnet.training.checkpoint_files import checkpoint_files

    try:
        return checkpoint_files(folder)
    except UserError:  # there is none yet
        return []


def changed_settings(settings: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, value, default) of every recipe value that is not the default; None stands for "not set"."""
    values, defaults = _flatten(settings), _flatten(Recipe().model_dump(mode="json"))
    keys = list(dict.fromkeys([*defaults, *values]))
    changed = [(key, values.get(key), defaults.get(key)) for key in keys]
    return [(key, value, default) for key, value, default in changed if value != default and value not in ({}, [])]


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif value != {}:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(_read_text(path))
    if not isinstance(value, dict):
        raise ValueError("it does not hold a JSON object")
    return value


def _read_kernels(path: Path) -> Kernels | None:
    """The first convolution of a checkpoint; two banks where the second one has two groups (paper 3.5 and Figure 3)."""
    from alexnet.training.checkpoint import load_checkpoint

    return first_kernels(load_checkpoint(path))

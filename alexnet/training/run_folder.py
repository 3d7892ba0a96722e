"""A run's folder: what is in it, whose it is, and that only one process writes to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from alexnet.config import Recipe
from alexnet.config_io import diff_recipes, load_recipe, to_toml
from alexnet.errors import UserError
from alexnet.models import get_architecture
from alexnet.runtime.files import read_json, write_text
from alexnet.training.checkpoint import earlier_checkpoints

NEUTRAL_KEYS = (
    "data.cache_gb",
    "data.memory_limit_gb",
    "evaluate.batch_size",
    "logging",
    "parallel",
    "runtime.num_threads",
    "runtime.num_workers",
    "train.checkpoint_minutes",
    "train.keep_checkpoints",
    "train.on_stuck",
)
"""Keys that do not change the result but for the order of sums; they may differ when a run is continued."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.data = path / "data.json"
        self.statistics = path / "statistics.npz"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.last_checkpoint = path / "checkpoints" / "last.pt"
        self.best_checkpoint = path / "checkpoints" / "best.pt"
        self.evaluation = path / "evaluation.npz"
        self.diverged_batch = path / "diverged.npz"
        self.report_images = path / "report_images.npz"
        self.examples = path / "examples"
        self.summary = path / "summary.json"
        self._lock: IO[str] | None = None

    def saved_recipe(self) -> Recipe | None:
        """The recipe of the run this folder holds; None where there is none yet."""
        return load_recipe(self.config) if self.config.is_file() else None

    def resumable(self) -> list[Path]:
        """The checkpoints that training can go on from, the youngest first."""
        files = (self.last_checkpoint, *earlier_checkpoints(self.last_checkpoint))
        return [file for file in files if file.is_file()]

    def open(self, recipe: Recipe, data: dict[str, Any]) -> None:
        """Claim the folder for a run, new or continued.

        `data` identifies the data set: at least `fingerprint` and `source`. Raises UserError when the folder holds
        another run (naming what differs), something else, or is in use.
        """
        self.claim()
        try:
            self._admit(recipe, data)
        except BaseException:
            self.close()
            raise

    def _admit(self, recipe: Recipe, data: dict[str, Any]) -> None:
        self._remove_torn_files()
        saved = self.saved_recipe()
        if saved is None:
            self._refuse_foreign_files()
        has_results = self.summary.is_file() or any(self.last_checkpoint.parent.glob("*.pt"))
        if saved is None or not has_results:
            # There is nothing to lose: a first attempt that failed may be mended and tried again.
            for file in (self.statistics, self.metrics):
                file.unlink(missing_ok=True)
            write_text(self.data, json.dumps(data, indent=1))
            write_text(self.config, to_toml(recipe))
            return
        # What the run begins with is known by its contents, wherever the file lies by now.
        may_differ = [*NEUTRAL_KEYS]
        if saved.model.init_sha256 == recipe.model.init_sha256:
            may_differ.append("model.init")
        if not get_architecture(recipe.model.name).has_batch_norm:  # which normalises each part of a batch by itself
            may_differ.append("train.micro_batch_size")
        differences = [
            f"{key} = {old!r} there, {new!r} now"
            for key, old, new in diff_recipes(saved, recipe)
            if not any(key == neutral or key.startswith(f"{neutral}.") for neutral in may_differ)
        ]
        before = self.data_record() if self.data.is_file() else {}
        if before.get("fingerprint") != data["fingerprint"]:
            differences.append(
                f"the data: {before.get('source')} with {before.get('num_train')} training images there, "
                f"{data['source']} with {data['num_train']} now"
            )
        if differences:
            raise UserError(
                f"{self.path} holds another run: {'; '.join(differences)}. Give a new --output, or the same settings."
            )

    def data_record(self) -> dict[str, Any]:
        """data.json. Raises UserError where it is damaged."""
        return read_json(self.data, "restore it from a copy, or begin again with a new --output")

    def claim(self) -> None:
        """Make sure that no other process writes here, until `close`. Raises UserError when one does."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--output {self.path} is a file; give a folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"Cannot write to --output {self.path}: {error.strerror}.") from None
        try:
            import fcntl
        except ImportError:  # Windows has no flock; there the folder is not guarded.
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(f"Another process is training in {self.path}; wait for it or stop it.") from None
        except OSError:
            pass  # Some network disks have no locks; there the folder is not guarded.

    def _remove_torn_files(self) -> None:
        """What a killed process had begun to write; the files it would have replaced are whole."""
        for folder in (self.path, self.last_checkpoint.parent):
            for torn in folder.glob(".*.tmp"):
                torn.unlink()

    def _refuse_foreign_files(self) -> None:
        known = {self.data.name}
        foreign = sorted(item.name for item in self.path.iterdir() if item.name[0] != "." and item.name not in known)
        if foreign:
            raise UserError(
                f"--output {self.path} holds no run, but is not empty (there is {foreign[0]}); give a new folder."
            )

    def close(self) -> None:
        """Release the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

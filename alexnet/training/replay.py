"""The steps before a loss that was not finite, once more, to see where it began.

The images of a step, their crops and the dropout follow from (seed, step) and the weights from the last checkpoint, so
that the same steps can be repeated in one process, however many there were.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.loader import Batch
from alexnet.data.sources import open_source
from alexnet.errors import UserError
from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.reporting.metrics_log import NoLog, read_events
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.runtime.device import configure
from alexnet.runtime.distributed import ALONE
from alexnet.runtime.process_settings import restored_settings
from alexnet.training.begin import last_checkpoint
from alexnet.training.diverged_batch import load_diverged_batch
from alexnet.training.network import begin_network
from alexnet.training.run import build_trainer
from alexnet.training.run_data import load_run_data
from alexnet.training.run_folder import RunFolder
from alexnet.training.signals import Signals, measure_signals, root_mean_square
from alexnet.training.trainer import Trainer

_NUM_SIGNAL_IMAGES = 32


@dataclass(frozen=True)
class Replay:
    """What repeating the steps has shown."""

    step: int
    """Whose loss was not finite in the run."""
    first_step: int
    """That of the checkpoint where the repetition began."""
    losses: tuple[float, ...]
    """Of the steps from there on, until one is not finite, or that of `step`."""
    weight_growth: dict[str, tuple[float, float]]
    """Layer: the RMS of its weights at `first_step` and before `step`."""
    signals: Signals
    """Of images of the batch of `step` with the weights before it, layer by layer, without dropout, in float32."""
    bad_images: tuple[str, ...]
    """Those of the batch whose loss is not finite, without dropout."""
    same_batch: bool | None
    """Whether the batch is the one that the run kept; None where it kept none."""

    @property
    def is_repeated(self) -> bool:
        """Whether a loss was not finite this time too."""
        return not all(math.isfinite(loss) for loss in self.losses)


@restored_settings()
def replay(path: Path, display: ProgressDisplay) -> Replay:
    """Repeat a run's steps from its last checkpoint to the one whose loss was not finite; the run stays as it is.

    Raises UserError where the run never had such a loss, where its data is gone or has changed, or while it trains.
    """
    folder = RunFolder(path)
    recipe = folder.saved_recipe()
    diverged = [event for event in read_events(folder.metrics) if event["event"] == "diverged"]
    if recipe is None or not diverged:
        raise UserError(f"{path} has no loss in its log that was not finite, so there is nothing to replay.")
    step = int(diverged[-1]["step"])
    folder.claim()
    try:
        data_record = folder.data_record()
        source = open_source(data_record["source"], recipe.data)
        if source.fingerprint != data_record["fingerprint"]:
            raise UserError(f"{data_record['source']} is no longer the data that {path} was trained on.")
        recipe, network = begin_network(recipe, folder, source.classes)
        trainer = build_trainer(
            recipe,
            data_record["source"],
            network,
            load_run_data(recipe, source, folder, display, ALONE),
            folder,
            checkpoint=last_checkpoint(folder, display),
            log=NoLog(),
            execution=configure(recipe.runtime),
            display=display,
            world=ALONE,
        )
        return _repeat(trainer, step, display)
    finally:
        folder.close()


def _repeat(trainer: Trainer, step: int, display: ProgressDisplay) -> Replay:
    first = trainer.state.step
    if first > step:
        raise UserError(f"The last checkpoint is of step {first}, after step {step}, whose loss was not finite.")
    before = _weight_rms(trainer)
    losses: list[float] = []
    count = display.counter("Repeating steps", unit="steps")
    with closing(trainer.loader.batches(first, step)) as batches:
        for batch in batches:
            losses.append(float(trainer.update(batch).loss))
            trainer.state.step += 1
            count(len(losses), step - first)
            if not math.isfinite(losses[-1]):
                break  # other rounding than in the run: it comes a little earlier here
    batch = trainer.loader.make_batch(trainer.state.step)
    after = _weight_rms(trainer)
    signals, bad_images = _look_at(trainer, batch)
    losses.append(float(trainer.update(batch).loss))
    growth = {layer: (before[layer], after[layer]) for layer in before}
    return Replay(step, first, tuple(losses), growth, signals, bad_images, _is_kept_batch(trainer, batch, step))


def _weight_rms(trainer: Trainer) -> dict[str, float]:
    """Of every layer that has weights."""
    return {
        name.removesuffix(".weight"): root_mean_square(weight)
        for name, weight in trainer.model.named_parameters()
        if name.endswith(".weight")
    }


def _look_at(trainer: Trainer, batch: Batch) -> tuple[Signals, tuple[str, ...]]:
    """The batch's way through the network, without dropout, and the images whose loss is not finite."""
    labels = batch.labels.to(trainer.device)
    bad: list[int] = []
    with evaluation_mode([trainer.model]), torch.no_grad():
        for start in range(0, len(labels), _NUM_SIGNAL_IMAGES):
            rows = slice(start, start + _NUM_SIGNAL_IMAGES)
            logits = trainer.model(_inputs(trainer, batch, rows)).float()
            losses = F.cross_entropy(logits, labels[rows], reduction="none")
            bad += [start + row for row in torch.nonzero(~losses.isfinite()).flatten().tolist()]
    shown = slice(bad[0] if bad else 0, (bad[0] if bad else 0) + _NUM_SIGNAL_IMAGES)
    signals = measure_signals(trainer.model, _inputs(trainer, batch, shown), labels[shown])
    return signals, tuple(str(trainer.loader.images.keys[int(batch.indices[row])]) for row in bad)


def _inputs(trainer: Trainer, batch: Batch, rows: slice) -> Tensor:
    return batch.images(rows, trainer.preprocessing, trainer.device, torch.float32)


def _is_kept_batch(trainer: Trainer, batch: Batch, step: int) -> bool | None:
    path = trainer.folder.diverged_batch
    if batch.step != step or not path.is_file():
        return None
    kept = load_diverged_batch(path)
    return kept.step == step and np.array_equal(kept.crops, batch.crops.numpy())

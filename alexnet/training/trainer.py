"""The training loop: the one place where batches, the step, evaluations and checkpoints come together.

Read `Trainer.fit` first. A step is in step.py, the update rule in optimizer.py, the batches in data/loader.py.
"""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import torch

from alexnet.config import Recipe
from alexnet.data.loader import Batch, TrainingLoader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import ImageSet
from alexnet.data.transfer import batches_on_device
from alexnet.errors import RunError
from alexnet.evaluation.evaluator import evaluate
from alexnet.evaluation.report import EvaluationReport
from alexnet.models import AlexNet
from alexnet.ops import triton_masks
from alexnet.reporting.metrics_log import MetricsLog
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.runtime.device import Execution, has_work
from alexnet.runtime.randomness import draw_dropout_masks
from alexnet.training.averaging import WeightAverage
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.data_wait import DataWait, reading_advice
from alexnet.training.freezing import freeze_by_rate
from alexnet.training.graphed_step import GraphedStep
from alexnet.training.optimizer import build_optimizer, set_learning_rates
from alexnet.training.run_folder import RunFolder
from alexnet.training.schedules import PlateauRule, Progress
from alexnet.training.step import StepResult, train_step
from alexnet.training.watch import describe_divergence, explain, watch_for


@dataclass
class TrainingState:
    """What changes while training, besides weights and velocities; saved with every checkpoint."""

    step: int = 0
    """Updates done."""
    best_error: float = math.inf
    evaluations_since_best: int = 0
    plateau: PlateauRule = field(default_factory=PlateauRule)
    last_evaluation: dict[str, Any] = field(default_factory=dict)
    wrong_since_evaluation: int = 0
    """Of the training images since the last evaluation, as the network saw them."""
    images_since_evaluation: int = 0
    train_error: float = math.inf
    """The top-1 error of the training images between the last two evaluations, a fraction."""
    train_seconds: float = 0.0
    """Time spent in steps, over all parts of an interrupted run."""
    data_wait_seconds: float = 0.0
    """Of which the step waited for its images."""


@dataclass
class _Window:
    """The steps since the last line of the log; sums stay on the device."""

    results: list[StepResult] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)


class Trainer:
    """Trains one model on one data set, from wherever its run folder says it stands."""

    def __init__(
        self,
        recipe: Recipe,
        model: AlexNet,
        loader: TrainingLoader,
        validation: ImageSet,
        preprocessing: Preprocessing,
        *,
        execution: Execution,
        folder: RunFolder,
        description: dict[str, Any],
        log: MetricsLog,
        display: ProgressDisplay,
        copied: Collection[str] = (),
    ) -> None:
        """`description`: the fields of a checkpoint that stay the same; `copied`: layers that model.init has given."""
        self.recipe = recipe
        self.device, self.dtype = execution.device, execution.dtype
        self.model = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.set_conv1_form(execution.conv1)
        self.loader = loader
        self.validation = validation
        self.preprocessing = preprocessing
        self.folder = folder
        self.description = description
        self.log = log
        self.display = display
        # On a GPU the whole step is one graph; step.py says what is in it.
        self.train_step = GraphedStep(on_fallback=display.message) if self.device.type == "cuda" else train_step
        self.optimizer = build_optimizer(self.model, recipe.optimizer, copied)
        self.dropout_layers = {
            name: (features, float(self.model.get_submodule(name).rate))  # type: ignore[arg-type]
            for name, features in self.model.dropout_layers.items()
        }
        self.average = WeightAverage(self.model, recipe.train.ema_decay) if recipe.train.ema_decay else None
        self.state = TrainingState()
        self.data_wait = DataWait(partial(reading_advice, loader), is_busy=lambda: has_work(self.device))
        self.batch_size = recipe.train.batch_size
        self.epochs_per_step = self.batch_size / len(loader.images)
        planned = recipe.train.epochs / self.epochs_per_step
        steps = max(planned, recipe.train.min_steps or 1)
        # A run that min_steps makes longer is evaluated as often as it would have been.
        self.evaluate_every_epochs = recipe.train.evaluate_every_epochs * steps / min(planned, steps)
        self.num_steps = math.ceil(steps - 1e-9)  # a hair less, so that rounding does not add a step
        self.watch = watch_for(recipe, loader.images.labels, self.model.num_classes, self.num_steps)

    def fit(self) -> bool:
        """Train to the end of the recipe. Returns False when a signal stopped it; the state is saved either way."""
        if self._is_time_to_stop_early():
            return True
        window = _Window()
        last_save = time.monotonic()
        reading = self.loader.batches(self.state.step, self.num_steps)
        with (
            stop_requested_by_signal() as stop,
            self._progress_bar() as bar,
            closing(self.data_wait.timed(batches_on_device(reading, self.device))) as batches,
        ):
            for batch in batches:
                window.results.append(self._step(batch))
                self.state.step += 1
                stopping = stop.is_set()
                finished = self.state.step == self.num_steps
                evaluating = finished or self._evaluation_is_due()
                minutes = (time.monotonic() - last_save) / 60
                saving = finished or stopping or minutes >= self.recipe.train.checkpoint_minutes
                # Before anything is saved the losses are read: after one that is not finite nothing is replaced.
                if evaluating or saving or self.state.step % self.recipe.logging.log_every_steps == 0:
                    bar.update(self.state.step * self.batch_size, self._log_window(window, batch))
                    window = _Window()
                if evaluating:
                    self._evaluate()
                    finished = finished or self._is_time_to_stop_early()
                if saving or finished:
                    self.save_last()
                    last_save = time.monotonic()
                if finished:
                    return True
                if stopping:
                    self.log.write("stop", step=self.state.step, epoch=self.epoch)
                    return False
                if evaluating or saving:
                    window = _Window()  # the clock starts again
        return True

    @property
    def epoch(self) -> float:
        """Passes over the training set so far."""
        return self.state.step * self.epochs_per_step

    def _step(self, batch: Batch) -> StepResult:
        """One update of the weights, everything random in it being a function of (seed, step)."""
        step = self.state.step
        progress = Progress(self.epoch, (step + 0.5) / self.num_steps, self.state.plateau.drops)
        set_learning_rates(self.optimizer, self.recipe.schedule, progress, self.epochs_per_step)
        draw = triton_masks.draw_masks if triton_masks.supports(self.device) else draw_dropout_masks
        masks = draw(
            self.dropout_layers,
            seed=self.recipe.seed,
            step=step,
            batch_size=self.batch_size,
            device=self.device,
        )
        self.model.train()
        freeze_by_rate(self.model, self.optimizer)
        result = self.train_step(
            self.model,
            self.optimizer,
            batch,
            preprocessing=self.preprocessing,
            dropout_masks=masks,
            micro_batch_size=self.recipe.train.micro_batch_size or self.batch_size,
            label_smoothing=self.recipe.train.label_smoothing,
            device=self.device,
            dtype=self.dtype,
        )
        if self.average is not None:
            self.average.update(self.model, step + 1)
        return result

    def _log_window(self, window: _Window, batch: Batch) -> dict[str, float]:
        """Read the results of the steps since the last line (the only wait for the device), and write them down.

        `batch`: the last of them; where the loss is stuck, it is used to find out why.
        """
        losses = torch.stack([result.loss for result in window.results]).cpu()
        wrong = int(torch.stack([result.num_wrong for result in window.results]).sum())
        seconds = time.perf_counter() - window.started
        self.state.train_seconds += seconds
        wait_share, complaint = self.data_wait.end_window(seconds)
        self.state.data_wait_seconds += wait_share * seconds
        if complaint is not None:
            self.display.message(complaint)
        num_images = len(window.results) * self.batch_size
        self.state.wrong_since_evaluation += wrong
        self.state.images_since_evaluation += num_images
        if not bool(torch.isfinite(losses).all()):
            self._tell_divergence(losses.tolist())
        values = {"loss": float(losses.mean()), "error": wrong / num_images}
        self.log.write(
            "step",
            step=self.state.step,
            epoch=self.epoch,
            loss=values["loss"],
            top1_error=values["error"],
            lr=self._learning_rate(),
            images_per_second=num_images / seconds,
            data_wait_share=wait_share,
            seconds=self.state.train_seconds,
        )
        stuck = self.watch.observe(self.state.step, len(losses), values["loss"])
        if stuck is not None:
            self._tell_stuck(stuck.describe(self.model.num_classes), batch)
        return values

    def _learning_rate(self) -> float:
        """Of the weights of the layers that learn fastest: the recipe's, by its schedule, unless all have factors."""
        return max(group["lr"] for group in self.optimizer.param_groups if not group["is_bias"])

    def _tell_divergence(self, losses: list[float]) -> NoReturn:
        """End the run with a loss that is not finite; nothing is saved over what was good."""
        finite = list(itertools.takewhile(math.isfinite, losses))
        bad, lr = self.state.step - len(losses) + len(finite), self._learning_rate()
        self.log.write("diverged", step=bad, epoch=bad * self.epochs_per_step, lr=lr)
        raise RunError(
            f"{describe_divergence(bad, finite, lr)} Lower optimizer.lr or add "
            "schedule.warmup_epochs, and give a new --output if this one has checkpoints; they are from before."
        )

    def _tell_stuck(self, what: str, batch: Batch) -> None:
        """Say that the loss is no better than guessing, and why; with train.on_stuck = "stop", save and end the run."""
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        cause = explain(self.model, batch, self.preprocessing, self.dtype, lr)
        self.log.write("stuck", step=self.state.step, epoch=self.epoch, cause=cause.id, what=cause.what)
        message = f"Step {self.state.step}: {what}. The likely cause: {cause.what}. What to do: {cause.remedy}."
        if self.recipe.train.on_stuck == "stop":
            self.save_last()
            self.log.write("stop", step=self.state.step, epoch=self.epoch)
            raise RunError(
                f"{message} Everything is saved; the same command with --on-stuck warn goes on all the same."
            )
        self.display.message(message)

    def _evaluation_is_due(self) -> bool:
        """Whether this step crossed a multiple of evaluate_every_epochs."""
        every = self.evaluate_every_epochs
        # A hair is added so that a step that ends exactly on the multiple counts in spite of rounding.
        return math.floor(self.epoch / every + 1e-9) > math.floor((self.epoch - self.epochs_per_step) / every + 1e-9)

    def _is_time_to_stop_early(self) -> bool:
        return self._reason_to_stop_early() is not None

    def _reason_to_stop_early(self) -> str | None:
        patience, target = self.recipe.train.early_stop_evaluations, self.recipe.train.stop_at_train_error
        if patience is not None and self.state.evaluations_since_best >= patience:
            return f"No better error in {self.state.evaluations_since_best} evaluations"
        if target is not None and self.state.train_error <= target:
            return f"The error on training images is {self.state.train_error:.2%}, at most {target:.2%}"
        return None

    def _evaluate(self) -> None:
        """Centre-crop error on the validation set, for the schedule and the log; keeps the best weights."""
        report = self.evaluate("center", "Validation")
        error = report.top1_error
        is_best = error < self.state.best_error
        self.state.train_error = self.state.wrong_since_evaluation / max(self.state.images_since_evaluation, 1)
        self.state.wrong_since_evaluation = self.state.images_since_evaluation = 0
        self.state.best_error = min(error, self.state.best_error)
        self.state.evaluations_since_best = 0 if is_best else self.state.evaluations_since_best + 1
        dropped = self.state.plateau.observe(error, self.recipe.schedule)
        self.state.last_evaluation = {
            "split": "val",
            "views": "center",
            "num_images": report.num_images,
            "loss": report.loss,
            "top1_error": error,
            "top5_error": report.top5_error,
        }
        self.log.write(
            "evaluation",
            step=self.state.step,
            epoch=self.epoch,
            **self.state.last_evaluation,
            train_top1_error=self.state.train_error,
            is_best=is_best,
        )
        self.display.message(
            f"Epoch {self.epoch:.2f}: validation error {error:.2%} top-1, {report.top5_error:.2%} top-5, "
            f"loss {report.loss:.4f} (centre crop, {report.num_images} images)"
        )
        if dropped and self.recipe.schedule.name == "plateau":
            self.display.message(
                f"The validation error has stopped improving: learning rate drop {self.state.plateau.drops}."
            )
        if is_best:
            save_checkpoint(self.folder.best_checkpoint, self._checkpoint(resumable=False))
        reason = self._reason_to_stop_early()
        if reason is not None:
            self.display.message(f"{reason}: stopping early.")

    def evaluate(self, views: str, title: str) -> EvaluationReport:
        """Evaluate the present weights (their average where one is kept) on the validation set."""
        return evaluate(
            [self.model if self.average is None else self.average.model],
            [self.preprocessing],
            self.validation,
            classes=self.description["classes"],
            class_names=self.description["class_names"],
            views=views,
            batch_size=self.recipe.evaluate.batch_size,
            device=self.device,
            dtype=self.dtype,
            on_progress=self.display.counter(title, transient=True),
        )

    def save_last(self) -> None:
        """Write checkpoints/last.pt."""
        save_checkpoint(self.folder.last_checkpoint, self._checkpoint(resumable=True))

    def _checkpoint(self, *, resumable: bool) -> Checkpoint:
        training_state = None
        if resumable:
            training_state = {
                "optimizer": self.optimizer.state_dict(),
                "weights": self.model.state_dict() if self.average is not None else None,
                "state": {**vars(self.state), "plateau": self.state.plateau.to_dict()},
            }
        return Checkpoint(
            **self.description,
            step=self.state.step,
            epoch=self.epoch,
            metrics=self.state.last_evaluation,
            model_state=(self.model if self.average is None else self.average.model).state_dict(),
            training_state=training_state,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a resumable checkpoint of the same run."""
        saved = checkpoint.training_state
        if saved is None:
            raise RunError(f"{self.folder.last_checkpoint} cannot be continued from; it holds weights only.")
        weights = checkpoint.model_state if saved["weights"] is None else saved["weights"]
        self.model.load_state_dict(weights)
        if self.average is not None:
            self.average.model.load_state_dict(checkpoint.model_state)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = TrainingState(**{**saved["state"], "plateau": PlateauRule(**saved["state"]["plateau"])})

    @contextmanager
    def _progress_bar(self) -> Iterator[Any]:
        bar = self.display.start("Training", self.num_steps * self.batch_size, done=self.state.step * self.batch_size)
        try:
            yield bar
        finally:
            bar.finish()


@contextmanager
def stop_requested_by_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the loop finishes its step; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in before:
        signal.signal(number, request_stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

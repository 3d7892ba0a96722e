"""The training loop: the one place where batches, the step, evaluations and checkpoints come together.

Read `Trainer.fit` first. A step is in step.py, the update rule in optimizer.py, the batches in data/loader.py.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from alexnet.config import Recipe
from alexnet.data.loader import Batch, TrainingLoader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.squares import ImageSet
from alexnet.data.transfer import batches_on_device
from alexnet.errors import DivergedError, RunError
from alexnet.evaluation.evaluator import evaluate
from alexnet.evaluation.report import EvaluationReport
from alexnet.models import AlexNet
from alexnet.ops import triton_masks
from alexnet.reporting.metrics_log import MetricsLog, NoLog
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.runtime.device import Execution, has_work, num_workers_of
from alexnet.runtime.distributed import World
from alexnet.runtime.randomness import draw_dropout_masks
from alexnet.training.agreement import Agreement
from alexnet.training.averaging import WeightAverage
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.checkpoint_files import Selection
from alexnet.training.checkpoint_writer import CheckpointWriter
from alexnet.training.data_wait import DataWait, reading_advice
from alexnet.training.diverged_batch import save_diverged_batch
from alexnet.training.freezing import freeze_by_rate
from alexnet.training.graphed_step import GraphedStep
from alexnet.training.optimizer import build_optimizer, set_learning_rates
from alexnet.training.parallelism import build_parallelism
from alexnet.training.run_folder import RunFolder
from alexnet.training.schedules import Progress
from alexnet.training.state import TrainingState
from alexnet.training.step import StepResult, train_step
from alexnet.training.stop_signals import StopRequest, stop_requested_by_signal
from alexnet.training.watch import describe_divergence, explain, watch_for


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
        world: World,
        folder: RunFolder,
        description: dict[str, Any],
        log: MetricsLog | NoLog,
        display: ProgressDisplay,
        copied: Collection[str] = (),
    ) -> None:
        """`description`: the fields of a checkpoint that stay the same; `copied`: layers that model.init has given.

        Of the processes of `world`, the main one alone writes to the folder.
        """
        self.recipe = recipe
        self.world = world
        self.device, self.dtype = execution.device, execution.dtype
        self.model = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.conv1_form = execution.conv1
        self.loader = loader
        self.validation = validation
        self.preprocessing = preprocessing
        self.folder = folder
        self.description = description
        self.log = log
        self.display = display
        self.batch_size = recipe.train.batch_size
        self.sharing = build_parallelism(recipe, self.model, world, execution)
        # On a GPU the whole step is one graph; step.py says what is in it.
        graphed = world.size == 1 and self.device.type == "cuda"
        shared = partial(train_step, sharing=self.sharing, batch_size=self.batch_size)
        self.train_step = GraphedStep(on_fallback=display.message) if graphed else shared
        self.optimizer = build_optimizer(self.sharing.trained, recipe.optimizer, copied)
        self.dropout_layers = {
            name: (features, float(self.model.get_submodule(name).p))  # type: ignore[arg-type]
            for name, features in self.model.dropout_layers.items()
        }
        self.average = WeightAverage(self.model, recipe.train.ema_decay) if recipe.train.ema_decay else None
        self.state = TrainingState()
        self.writer = CheckpointWriter()
        self.stop = StopRequest()
        self.data_wait = DataWait(partial(reading_advice, loader), is_busy=lambda: has_work(self.device))
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
        agreement = Agreement(self.world)
        reading = self.loader.batches(self.state.step, self.num_steps)
        with (
            stop_requested_by_signal(self.stop),
            self._progress_bar() as bar,
            self.writer,
            closing(agreement),
            closing(self.data_wait.timed(batches_on_device(reading, self.device))) as batches,
        ):
            self.world.doing("waiting for images", self.state.step)
            for batch in batches:
                self.world.doing("computing a step and exchanging gradients", self.state.step)
                window.results.append(self.update(batch))
                self.state.step += 1
                minutes = (time.monotonic() - last_save) / 60
                is_time = self.world.is_main and minutes >= self.recipe.train.checkpoint_minutes
                stopping, saving = agreement.after_step(stop=self.stop.is_set(), save=is_time)
                finished = self.state.step == self.num_steps
                evaluating = finished or self._evaluation_is_due()
                saving = saving or finished or stopping
                # Before anything is saved the losses are read: after one that is not finite nothing is replaced.
                if evaluating or saving or self.state.step % self.recipe.logging.log_every_steps == 0:
                    bar.update(self.state.step * self.batch_size, self._log_window(window, batch))
                    window = _Window()
                if evaluating:
                    self.world.doing("evaluating", self.state.step)
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
                self.world.doing("waiting for images", self.state.step)
        return True

    @property
    def epoch(self) -> float:
        """Passes over the training set so far."""
        return self.state.step * self.epochs_per_step

    def update(self, batch: Batch) -> StepResult:
        """One update of the weights, everything random in it being a function of (seed, step)."""
        step = self.state.step
        progress = Progress(self.epoch, (step + 0.5) / self.num_steps, self.state.plateau.drops)
        set_learning_rates(self.optimizer, self.recipe.schedule, progress, self.epochs_per_step)
        draw = triton_masks.draw_masks if triton_masks.supports(self.device) else draw_dropout_masks
        masks = draw(
            self.dropout_layers, seed=self.recipe.seed, step=step, batch_size=self.batch_size, device=self.device
        )
        self.sharing.trained.train()
        if freeze_by_rate(self.sharing.trained, self.optimizer):
            self.sharing.frozen_changed()
        micro_batch_size = self.recipe.train.micro_batch_size
        assert micro_batch_size != "auto", "a run begins by choosing"
        result = self.train_step(
            self.sharing.network,
            self.optimizer,
            batch,
            preprocessing=self.preprocessing,
            dropout_masks=self.sharing.own_masks(masks, self.loader.rows),
            micro_batch_size=micro_batch_size or len(self.loader.rows),
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
        losses = self.world.sum(torch.stack([result.loss for result in window.results]).cpu())
        wrong = int(self.world.sum(torch.stack([result.num_wrong for result in window.results]).sum().cpu()))
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
        with self.world.together(), suppress(OSError, RunError):  # what matters more is said below
            if self.world.is_main:
                save_diverged_batch(self.folder.diverged_batch, self.loader, bad)
        error = DivergedError(
            f"{describe_divergence(bad, finite, lr)} Lower optimizer.lr or add schedule.warmup_epochs, and give a new "
            f"--output if this one has checkpoints; they are from before. alexnet doctor {self.folder.path} --replay "
            "repeats the steps since then and shows where it began."
        )
        raise self.world.told_once(error)

    def _tell_stuck(self, what: str, batch: Batch) -> None:
        """Say that the loss is no better than guessing, and why; with train.on_stuck = "stop", save and end the run."""
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        self.sharing.gather()
        cause = explain(self.model, batch, self.preprocessing, self.dtype, lr)
        self.log.write("stuck", step=self.state.step, epoch=self.epoch, cause=cause.id, what=cause.what)
        message = f"Step {self.state.step}: {what}. The likely cause: {cause.what}. What to do: {cause.remedy}."
        if self.recipe.train.on_stuck == "stop":
            self.save_last()
            self.log.write("stop", step=self.state.step, epoch=self.epoch)
            error = RunError(
                f"{message} Everything is saved; the same command with --on-stuck warn goes on all the same."
            )
            raise self.world.told_once(error)
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
        try:
            report = self.evaluate("center", "Validation")
        except DivergedError:
            # The last update broke the weights; no batch has seen them yet.
            self.log.write("diverged", step=self.state.step, epoch=self.epoch, lr=self._learning_rate())
            raise
        error = report.top1_error
        is_best = self.state.observe(error, report.loss)
        self.state.train_error = self.state.wrong_since_evaluation / max(self.state.images_since_evaluation, 1)
        self.state.wrong_since_evaluation = self.state.images_since_evaluation = 0
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
        top5 = f"{report.top5_error:.2%} top-5, " if self.model.num_classes > 5 else ""
        self.display.message(
            f"Epoch {self.epoch:.2f}: validation error {error:.2%} top-1, {top5}"
            f"loss {report.loss:.4f} (centre crop, {report.num_images} images)"
        )
        if dropped and self.recipe.schedule.name == "plateau":
            self.display.message(
                f"The validation error has stopped improving: learning rate drop {self.state.plateau.drops}."
            )
        if is_best and self.world.is_main:
            self.writer.write(self.folder.best_checkpoint, self._checkpoint("best"))
        reason = self._reason_to_stop_early()
        if reason is not None:
            self.display.message(f"{reason}: stopping early.")

    def evaluate(self, views: str, title: str) -> EvaluationReport:
        """Evaluate the present weights (their average where one is kept) on the validation set."""
        self.sharing.gather()
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
            num_workers=num_workers_of(self.recipe.runtime, self.validation.array is not None, self.world.local_size),
            world=self.world,
            on_progress=self.display.counter(title, transient=True),
        )

    def save_last(self) -> None:
        """Begin to write checkpoints/last.pt; all processes call it."""
        self.sharing.gather()
        training_state = {
            "optimizer": self.sharing.gather_optimizer(self.optimizer),
            "weights": self.model.state_dict() if self.average is not None else None,
            "state": self.state.to_dict(),
        }
        if self.world.is_main:
            keep = self.recipe.train.keep_checkpoints
            self.writer.write(self.folder.last_checkpoint, self._checkpoint("last", training_state), keep=keep)

    def _checkpoint(self, selection: Selection, training_state: dict[str, Any] | None = None) -> Checkpoint:
        return Checkpoint(
            **self.description,
            step=self.state.step,
            epoch=self.epoch,
            metrics=self.state.last_evaluation,
            model_state=(self.model if self.average is None else self.average.model).state_dict(),
            training_state=training_state,
            selection=selection,
        )

    def use_weights(self, state: Mapping[str, Tensor]) -> None:
        """Evaluate these from now on; for when the training is over."""
        (self.model if self.average is None else self.average.model).load_state_dict(state)
        self.sharing.scatter()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a resumable checkpoint of the same run."""
        saved = checkpoint.training_state
        if saved is None:
            raise RunError(f"{self.folder.last_checkpoint} cannot be continued from; it holds weights only.")
        weights = checkpoint.model_state if saved["weights"] is None else saved["weights"]
        self.model.load_state_dict(weights)
        if self.average is not None:
            self.average.model.load_state_dict(checkpoint.model_state)
        self.sharing.scatter()
        self.sharing.scatter_optimizer(self.optimizer, saved["optimizer"])
        self.state = TrainingState.from_dict(saved["state"])

    @contextmanager
    def _progress_bar(self) -> Iterator[Any]:
        bar = self.display.start("Training", self.num_steps * self.batch_size, done=self.state.step * self.batch_size)
        try:
            yield bar
        finally:
            bar.finish()

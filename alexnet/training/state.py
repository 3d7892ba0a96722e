"""What changes while training, besides weights and velocities."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from alexnet.training.schedules import PlateauRule


@dataclass
class TrainingState:
    """Saved with every checkpoint that a run can go on from."""

    step: int = 0
    """Updates done."""
    best_error: float = math.inf
    best_loss: float = math.inf
    """Nats, of the evaluation whose weights are kept as the best ones: of those with the lowest error the lowest."""
    evaluations_since_best: int = 0
    """Since the error was last lowered."""
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

    def observe(self, error: float, loss: float) -> bool:
        """Take in an evaluation, and return whether its weights are the best so far.

        The lower error is better; of equal errors, which few validation images give often, the lower loss. A lower loss
        alone does not count as progress for early stopping, which is about the error.

        Args:
            error: Top-1 error of the validation images, a fraction.
            loss: Their mean loss, nats.
        """
        is_lower = error < self.best_error
        is_best = (error, loss) < (self.best_error, self.best_loss)
        if is_best:
            self.best_error, self.best_loss = error, loss
        self.evaluations_since_best = 0 if is_lower else self.evaluations_since_best + 1
        return is_best

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the checkpoint."""
        return {**vars(self), "plateau": self.plateau.to_dict()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> TrainingState:
        """The state that `to_dict` has written.

        States of earlier versions do not have the loss of the best weights; against nan no tie of the error wins.
        """
        return cls(**{"best_loss": math.nan, **saved, "plateau": PlateauRule(**saved["plateau"])})

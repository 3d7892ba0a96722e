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

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the checkpoint."""
        return {**vars(self), "plateau": self.plateau.to_dict()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> TrainingState:
        """The state that `to_dict` has written."""
        return cls(**{**saved, "plateau": PlateauRule(**saved["plateau"])})

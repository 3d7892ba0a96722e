"""What is counted over predicted probabilities: errors, their intervals, losses and confusions. NumPy only."""

from __future__ import annotations

import math

import numpy as np

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""A label's probability that underflowed to 0 counts as this one in the loss (87.3 nats), which stays finite."""


def top_k_credit(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """How far each label is among the k most probable classes: (N, C) and (N,) -> (N,) float64 in [0, 1].

    1 or 0, except where the label is exactly tied with others at the border: m tied classes share the places that
    the strictly greater ones leave, so the credit is (k - greater) / m (S layer_kernels.cu kMultiSoftmaxCost).
    A network whose outputs are all equal so gets chance level, not 0 or 100 %; bfloat16 logits do tie.
    """
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    greater = (probabilities > of_label).sum(axis=1)
    tied = (probabilities == of_label).sum(axis=1)
    return np.clip((k - greater) / tied, 0.0, 1.0)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the natural logarithm of each label's probability: (N, C) and (N,) -> (N,) float64, in nats."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(of_label, SMALLEST_PROBABILITY))


def confusion_matrix(guesses: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (C, C) int64: row = true class, column = guessed class."""
    flat = np.bincount(labels * num_classes + guesses, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes)


def wilson_interval(successes: float, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default; (0, 1) for no trials.

    `successes` may be fractional (credits of tied classes). Unlike the normal approximation it stays within [0, 1]
    and is not empty at 0 or `trials` successes (Wilson 1927).
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    # The interval holds the share itself; rounding alone could put a bound on the wrong side of it.
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))

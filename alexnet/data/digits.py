"""The built-in digits: 1,797 real handwritten digits of 8 x 8 pixels, which scikit-learn carries."""

from __future__ import annotations

import hashlib

import numpy as np

from alexnet.data.splits import Source, Split, build_source

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUM_VAL = 360


def open_digits() -> Source:
    """1,437 training and 360 validation digits, 8 x 8, white on black; the split is fixed and stratified.

    Origin: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the test part; CC BY 4.0.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    flat, targets = load_digits(return_X_y=True)
    images, labels = np.asarray(flat).reshape(-1, 8, 8), np.asarray(targets, np.int64)
    # Sixteen grey levels and zero; the brightest is white.
    grey = np.rint(images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    held_out = _held_out(labels)
    return build_source(
        name="digits",
        kind="digits",
        classes=[str(label) for label in range(10)],
        class_names=_NAMES,
        train=_split("train", pixels, labels, np.flatnonzero(~held_out)),
        val=_split("val", pixels, labels, np.flatnonzero(held_out)),
    )


def _held_out(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: _NUM_VAL images, each class with its share, by the largest remainders; which ones, a hash decides."""
    counts = np.bincount(labels)
    quotas = counts * (_NUM_VAL / len(labels))
    shares = np.floor(quotas).astype(int)
    for label in np.argsort(shares - quotas, kind="stable")[: _NUM_VAL - shares.sum()]:
        shares[label] += 1
    held_out = np.zeros(len(labels), bool)
    for label, share in enumerate(shares):
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda i: hashlib.sha256(f"digits:{i}".encode()).digest())
        held_out[members[:share]] = True
    return held_out


def _split(name: str, pixels: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> Split:
    array = pixels[indices]
    keys = [f"digits/{i}" for i in indices]
    return Split(name, labels[indices], keys, array.__getitem__, array)

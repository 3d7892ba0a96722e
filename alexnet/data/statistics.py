"""The mean image and the colour covariance of a training set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alexnet.data.squares import ImageSet
from alexnet.data.threads import map_blocks

_BLOCK_BYTES = 2**21
_ROWS_AT_ONCE = 1024  # 96 KB of float64: they stay in the cache, and malloc need not ask for pages
_ZERO_VARIANCE_SHARE = 1e-12


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of all squares of a training set, in 0-255 RGB (paper 2, 4.1; paper.md 3.5).

    mean_image: (S, S, 3) float32. color_covariance: (3, 3) float64, over all pixels. color_stdevs: (3,) float64, its
    principal standard deviations, falling. color_vectors: (3, 3) float64, the unit eigenvectors as columns, each with
    its largest component positive. All are NumPy arrays.
    """

    mean_image: np.ndarray
    color_covariance: np.ndarray
    color_stdevs: np.ndarray
    color_vectors: np.ndarray
    num_images: int


def compute_statistics(
    images: ImageSet, num_workers: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> Statistics:
    """Mean image and colour covariance of `images`, with num_workers threads (0: this one).

    Sums are whole numbers, so the result is the same bit for bit in whatever order and blocks they are taken.
    on_progress(done, total) is called in this thread.
    """
    if len(images) == 0:
        raise ValueError("statistics need at least one image")
    return from_sums(*sums_over(images, range(len(images)), num_workers, on_progress), len(images))


def sums_over(
    images: ImageSet, part: range, num_workers: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`sums_of` the squares of consecutive images, decoded and counted as in `compute_statistics`."""
    total, size = len(part), images.image_size

    def sums(block: range) -> tuple[np.ndarray, np.ndarray]:
        chosen = part[block.start : block.stop]
        if images.array is not None:
            return sums_of(images.array[chosen.start : chosen.stop])
        return sums_of(np.stack([images.square(i) for i in chosen]))

    pixel_sums = np.zeros((size, size, 3), np.int64)
    product_sums = np.zeros((3, 3), np.int64)
    block_size = max(1, _BLOCK_BYTES // (size * size * 3))
    for block, (block_pixels, block_products) in map_blocks(sums, total, block_size, num_workers):
        pixel_sums += block_pixels
        product_sums += block_products
        if on_progress is not None:
            on_progress(block.stop, total)
    return pixel_sums, product_sums


def sums_of(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (n, S, S, 3) uint8 squares: the sum of each pixel, (S, S, 3) int64, and of products of colours, (3, 3) int64.

    Sums of several sets of squares may be added in any order: they are whole numbers.
    """
    # In float64 every product and partial sum is a whole number below 2**53: exact, and as fast as BLAS. Four pixels
    # make a row, since BLAS is slow on columns of three; the colours' products are the blocks on the diagonal.
    whole = squares.size // 12 * 12
    rows = squares.reshape(-1)[:whole].reshape(-1, 12)
    rest = squares.reshape(-1)[whole:].reshape(-1, 3).astype(np.float64)
    products = np.zeros((12, 12), np.float64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
        products += part.T @ part
    blocks = products.reshape(4, 3, 4, 3)
    color_products = sum((blocks[i, :, i] for i in range(4)), rest.T @ rest)
    return squares.sum(axis=0, dtype=np.int64), color_products.astype(np.int64)


def from_sums(pixel_sums: np.ndarray, product_sums: np.ndarray, num_images: int) -> Statistics:
    """The statistics of `num_images` squares from their sums, as `sums_of` gives them."""
    count = num_images * pixel_sums.shape[0] * pixel_sums.shape[1]
    covariance = _covariance(pixel_sums.sum(axis=(0, 1)).tolist(), product_sums.tolist(), count)
    stdevs, vectors = principal_components(covariance)
    return Statistics((pixel_sums / num_images).astype(np.float32), covariance, stdevs, vectors, num_images)


def _covariance(sums: list[int], products: list[list[int]], count: int) -> np.ndarray:
    """E[x y] - E[x] E[y] in Python's unbounded integers up to the one division, so that no digit cancels."""
    return np.array(
        [[(count * products[i][j] - sums[i] * sums[j]) / count**2 for j in range(3)] for i in range(3)], np.float64
    )


def principal_components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations (3,), falling, and unit eigenvectors (3, 3) as columns of a (3, 3) covariance.

    Variances that only rounding keeps from zero are zero. The sign is the one with the largest component positive (the
    first of them where two are equally large).
    """
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    variances = np.where(variances > _ZERO_VARIANCE_SHARE * variances[0], variances, 0.0)
    sizes = np.abs(vectors)
    largest = np.argmax(sizes > sizes.max(axis=0) - 1e-9, axis=0)
    signs = np.where(vectors[largest, np.arange(3)] < 0, -1.0, 1.0)
    return np.sqrt(variances), np.ascontiguousarray(vectors * signs)

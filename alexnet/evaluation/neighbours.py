"""The nearest of many vectors, by Euclidean distance, exactly: every vector is looked at, a block at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 8 * 2**20
"""Of a block in float32; measured, see docs/performance.md."""
_SPARE = 16


class Neighbours(NamedTuple):
    """For each of Q queries the k nearest vectors, nearest first."""

    indices: np.ndarray
    """(Q, k) int64."""
    distances: np.ndarray
    """(Q, k) float32, Euclidean."""


class NeighbourIndex:
    """Answers which rows of a matrix (N, D) are nearest to a query.

    The matrix may be mapped from a file and far larger than memory; it is read once per search, whatever the number of
    queries. Nothing is built beforehand: only the rows' squared lengths are kept from the first search on.
    """

    def __init__(self, features: np.ndarray, device: torch.device | str = "cpu") -> None:
        """features: (N, D), float16 or float32, one row a vector; device: where the products are computed."""
        assert features.ndim == 2, features.shape
        self.features = features
        self.device = torch.device(device)
        self.block_rows = max(1, BLOCK_BYTES // (4 * max(1, features.shape[1])))
        self._squares: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def search(self, queries: np.ndarray | Tensor, k: int) -> Neighbours:
        """The min(k, N) nearest rows to each of the queries (Q, D); of equally near ones it is open which come first.

        |x|^2 - 2 q x, a matrix product in float32, chooses k + 16 candidates; their distances are then computed from
        the differences in float64. So the answer is that of brute force, unless rounding (a part in a million of the
        squared lengths) moves a row by more than 16 places.
        """
        asked = torch.as_tensor(queries).to(self.device, torch.float32)
        kept = min(k + _SPARE, len(self))
        candidates = self._candidates(asked, kept).cpu().numpy()
        queries64 = asked.cpu().numpy().astype(np.float64)
        indices = np.empty((len(asked), min(k, len(self))), np.int64)
        distances = np.empty(indices.shape, np.float32)
        for position, query in enumerate(queries64):
            rows = np.sort(candidates[position])
            differences = self.features[rows].astype(np.float64) - query
            lengths = np.sqrt((differences * differences).sum(axis=1))
            order = np.argsort(lengths, kind="stable")[: indices.shape[1]]
            indices[position], distances[position] = rows[order], lengths[order]
        return Neighbours(indices, distances)

    def _candidates(self, queries: Tensor, count: int) -> Tensor:
        """(Q, count) int64: rows among which the nearest are, in no order."""
        scores = torch.full((len(queries), 0), torch.inf, device=self.device)
        rows = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
        squares = self._squares
        measured = torch.empty(len(self), device=self.device) if squares is None else squares
        with torch.inference_mode():
            for start in range(0, len(self), self.block_rows):
                part = slice(start, min(start + self.block_rows, len(self)))
                block = torch.from_numpy(self.features[part]).to(self.device).float()
                if squares is None:
                    measured[part] = torch.linalg.vector_norm(block, dim=1).square_()
                block_scores = torch.addmm(measured[part], queries, block.T, alpha=-2)
                best, position = block_scores.topk(min(count, len(block)), largest=False)
                scores, rows = torch.cat([scores, best], dim=1), torch.cat([rows, position + start], dim=1)
                if scores.shape[1] > count:
                    scores, chosen = scores.topk(count, largest=False)
                    rows = rows.gather(1, chosen)
        self._squares = measured
        return rows

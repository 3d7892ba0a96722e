"""A data set as points on a page: t-SNE of what a layer makes of its images (van der Maaten and Hinton, 2008)."""

from __future__ import annotations

import numpy as np

from alexnet.errors import UserError

PCA_DIMENSIONS = 50
PERPLEXITY = 30.0


def embed(features: np.ndarray, *, perplexity: float = PERPLEXITY, seed: int = 0) -> np.ndarray:
    """Points (N, 2) float32 for features (N, D): neighbours there are neighbours here, distances mean little else.

    The features are first projected on their 50 principal components, which keeps the neighbourhoods and spares most of
    the time. The perplexity is about the number of neighbours that count; it is lowered where there are few points.
    Equal arguments give equal points. Raises UserError for fewer than four images, and for features that are all equal.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = features.shape
    if count < 4:
        raise UserError(f"a map of {count} images says nothing; give at least four")
    features = features.astype(np.float32)
    if not (features != features[0]).any():
        raise UserError("all images have the same features, so there is nothing to tell them apart by")
    components = min(PCA_DIMENSIONS, count, width)
    reduced = PCA(components, random_state=seed).fit_transform(features) if components < width else features
    perplexity = min(perplexity, (count - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    # Directions mean nothing; the longest one lies across the page.
    return PCA(2, random_state=seed).fit_transform(points).astype(np.float32)

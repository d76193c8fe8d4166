"""Segments found in the data: k-means with a number of clusters that survives resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_score

from models.campaign.config import ClusterOptions
from models.campaign.segmentation import Segmenter, checked
from models.campaign.types import FEATURE_NAMES, CustomerFeatures
from models.errors import InvalidRequest

#: The RFM features and engagement; the rest describes a segment but does not form it.
CLUSTERED: tuple[str, ...] = ("recency_days", "frequency", "monetary", "engagement")
MEAN_STABILITY, MIN_STABILITY = 0.9, 0.7

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterQuality:
    """How one k fared: adjusted Rand index over bootstrap refits, silhouette and two indices for the record."""

    clusters: int
    mean_stability: float
    min_stability: float
    silhouette: float
    smallest_share: float
    calinski_harabasz: float
    davies_bouldin: float

    def stable(self, options: ClusterOptions) -> bool:
        return (
            self.mean_stability >= MEAN_STABILITY
            and self.min_stability >= MIN_STABILITY
            and self.smallest_share >= options.min_share
        )


class KMeansSegmenter:
    """Assigns the nearest centre in log-standardised features; built by `fit`."""

    method = "kmeans"

    def __init__(self, *, mean: Matrix, scale: Matrix, centres: Matrix, labels: Sequence[str]) -> None:
        self._mean, self._scale, self._centres, self._labels = mean, scale, centres, tuple(labels)

    def label(self, customer: CustomerFeatures) -> str:
        features = checked(customer)
        point = (np.log1p([features[name] for name in CLUSTERED]) - self._mean) / self._scale
        return self._labels[int(((self._centres - point) ** 2).sum(axis=1).argmin())]


def fit(
    customers: Sequence[CustomerFeatures], options: ClusterOptions, *, seed: int, namer: Segmenter
) -> tuple[KMeansSegmenter, tuple[ClusterQuality, ...]]:
    """Fit k-means (n_init 10, seeded) on log1p features, choosing k by stability first, then silhouette.

    When no k is stable the most stable one is taken; its quality tells. Each cluster is named by `namer` from its mean
    customer, numbered where two share a name. Raises `InvalidRequest` with fewer than 50 customers or no variety.
    """
    rng = np.random.default_rng(seed)
    raw = np.array([[checked(customer)[name] for name in FEATURE_NAMES] for customer in customers])
    if len(raw) > options.sample:
        raw = raw[rng.choice(len(raw), options.sample, replace=False)]
    columns = [FEATURE_NAMES.index(name) for name in CLUSTERED]
    if len(raw) < 50 or len(np.unique(raw[:, columns], axis=0)) < 5:
        raise InvalidRequest("k-means needs at least 50 customers that differ")
    logged = np.log1p(raw[:, columns])
    mean, scale = logged.mean(axis=0), np.where(logged.std(axis=0) > 0, logged.std(axis=0), 1.0)
    points = (logged - mean) / scale
    choices = [options.clusters] if options.clusters else [3, 4, 5]
    qualities = tuple(_quality(points, k, options, seed=seed, rng=rng) for k in choices)
    stable = [quality for quality in qualities if quality.stable(options)]
    if stable:
        best = max(stable, key=lambda quality: quality.silhouette)
    else:
        best = max(qualities, key=lambda quality: quality.mean_stability)
    model = _kmeans(best.clusters, seed).fit(points)
    labels = _names([raw[model.labels_ == cluster].mean(axis=0) for cluster in range(best.clusters)], namer)
    return KMeansSegmenter(mean=mean, scale=scale, centres=model.cluster_centers_, labels=labels), qualities


def _kmeans(clusters: int, seed: int) -> KMeans:
    return KMeans(n_clusters=clusters, n_init=10, random_state=seed)


def _quality(
    points: Matrix, clusters: int, options: ClusterOptions, *, seed: int, rng: np.random.Generator
) -> ClusterQuality:
    reference = _kmeans(clusters, seed).fit(points).labels_
    agreement = []
    for draw in range(options.bootstrap_draws):
        resampled = points[rng.integers(0, len(points), len(points))]
        agreement.append(adjusted_rand_score(reference, _kmeans(clusters, seed + draw).fit(resampled).predict(points)))
    return ClusterQuality(
        clusters=clusters,
        mean_stability=float(np.mean(agreement)),
        min_stability=float(np.min(agreement)),
        silhouette=float(silhouette_score(points, reference)),
        smallest_share=float(np.bincount(reference).min() / len(points)),
        calinski_harabasz=float(calinski_harabasz_score(points, reference)),
        davies_bouldin=float(davies_bouldin_score(points, reference)),
    )


def _names(means: Sequence[Matrix], namer: Segmenter) -> list[str]:
    labels: list[str] = []
    for mean in means:
        features = dict(zip(FEATURE_NAMES, (float(value) for value in mean), strict=True))
        label = namer.label(CustomerFeatures(customer_id="centre", **features))
        taken = sum(known == label or known.startswith(f"{label}_") for known in labels)
        labels.append(label if not taken else f"{label}_{taken + 1}")
    return labels

"""Groups of correlated features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import FeatureCorrelation


@dataclass(frozen=True)
class GroupingOptions:
    """How and how often correlation groups are formed: the `grouping` section of a variant."""

    every_n_steps: int = 100
    """Training steps between two groupings."""
    percentile: float = 75.0
    """q of the adaptive threshold, in percent."""
    min_size: int = 2
    """Smaller groups are dropped."""
    window_tokens: int = 4096
    """Tokens over which correlations are taken, spread evenly over the steps between two groupings."""

    def __post_init__(self) -> None:
        for name in ("every_n_steps", "window_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"grouping.{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 <= self.percentile < 100:
            raise ConfigError(f"grouping.percentile is {self.percentile}; it must be in [0, 100).")
        if self.min_size < 2:
            raise ConfigError(f"grouping.min_size is {self.min_size}; a group has 2 or more features.")


@dataclass(frozen=True)
class FeatureGroups:
    """Result of one grouping."""

    groups: tuple[Int[Tensor, " size"], ...]
    """Feature indices of each group, largest group first."""
    threshold: float
    """Adaptive threshold tau the groups were cut at."""


def group_features(correlation: FeatureCorrelation, percentile: float, min_size: int) -> FeatureGroups | None:
    """Cut average-linkage clusters of distance 1 - C at 1 - tau, tau = the percentile of |C| over co-firing pairs.

    A cluster's mean correlation can only reach tau if one of its pairs does, so clusters never cross the connected
    components of the graph C >= tau: each component is clustered by itself, exactly, and only its own part of C is
    formed. None if no two features fired together.
    """
    tau = correlation.threshold(percentile)
    if tau is None:
        return None
    groups = [
        correlation.features[columns[torch.from_numpy(members)]]
        for columns in _components(correlation, tau)
        for members in _clusters(correlation, columns, tau)
        if len(members) >= min_size
    ]
    groups.sort(key=lambda group: (-len(group), int(group[0])))
    return FeatureGroups(tuple(groups), tau)


def _components(correlation: FeatureCorrelation, tau: float) -> list[Int[Tensor, " n"]]:
    rows, columns = [], []
    for block in correlation.blocks():
        row, column = (block.correlation >= tau).nonzero(as_tuple=True)
        rows.append((row + block.start).cpu().numpy())
        columns.append(column.cpu().numpy())
    row, column = np.concatenate(rows), np.concatenate(columns)
    n = len(correlation.features)
    graph = coo_matrix((np.ones(len(row), dtype=np.int8), (row, column)), shape=(n, n))
    n_components, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(labels, minlength=n_components))[:-1])
    device = correlation.features.device
    return [torch.from_numpy(part).to(device) for part in parts if len(part) > 1]


def _clusters(correlation: FeatureCorrelation, columns: Int[Tensor, " n"], tau: float) -> list[np.ndarray]:
    distance = (1 - correlation.among(columns)).clamp(min=0).cpu().numpy()
    np.fill_diagonal(distance, 0.0)
    model = AgglomerativeClustering(
        n_clusters=None,  # pyright: ignore[reportArgumentType] - scikit-learn's own way to ask for a threshold
        metric="precomputed",
        linkage="average",
        distance_threshold=1 - tau,
    )
    labels = model.fit_predict(distance)
    return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]

"""Groups of correlated features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError, unknown_choice
from sae_lens_contrastive.feature_stats import FeatureCorrelation, Profiles
from sae_lens_contrastive.features.linkage import average_linkage

GroupingMethod = Literal["threshold", "hierarchical"]

_N_COMPONENTS = 65
_N_NEIGHBOURS = 8


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
    method: GroupingMethod = "threshold"
    """`threshold`: average linkage cut at the adaptive threshold. `hierarchical`: Ward linkage into `n_clusters`."""
    n_clusters: int = 32
    """Clusters of the hierarchical method."""

    def __post_init__(self) -> None:
        for name in ("every_n_steps", "window_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"grouping.{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 <= self.percentile < 100:
            raise ConfigError(f"grouping.percentile is {self.percentile}; it must be in [0, 100).")
        if self.min_size < 2:
            raise ConfigError(f"grouping.min_size is {self.min_size}; a group has 2 or more features.")
        if self.method not in get_args(GroupingMethod):
            raise unknown_choice("grouping.method", self.method, get_args(GroupingMethod))
        if self.n_clusters < 2:
            raise ConfigError(f"grouping.n_clusters is {self.n_clusters}; it must be 2 or more.")


@dataclass(frozen=True)
class FeatureGroups:
    """Result of one grouping."""

    groups: tuple[Int[Tensor, " size"], ...]
    """Feature indices of each group, largest group first."""
    threshold: float
    """Adaptive threshold tau; groups of the threshold method were cut at it."""

    def to(self, device: torch.device | str) -> FeatureGroups:
        """The same groups on another device."""
        return FeatureGroups(tuple(group.to(device) for group in self.groups), self.threshold)


def form_groups(correlation: FeatureCorrelation, options: GroupingOptions) -> FeatureGroups | None:
    """Group features as the options say; None if no two features fired together."""
    if options.method == "threshold":
        return group_features(correlation, options.percentile, options.min_size)
    return cluster_features(correlation, options.percentile, options.min_size, options.n_clusters)


def group_features(correlation: FeatureCorrelation, percentile: float, min_size: int) -> FeatureGroups | None:
    """Cut average-linkage clusters of distance 1 - C at 1 - tau, tau = the percentile of |C| over co-firing pairs.

    None if no two features fired together.
    """
    tau = correlation.threshold(percentile)
    if tau is None:
        return None
    return _groups(correlation, average_linkage(correlation, tau), tau, min_size)


def cluster_features(
    correlation: FeatureCorrelation, percentile: float, min_size: int, n_clusters: int
) -> FeatureGroups | None:
    """Ward-linkage clusters of the features that fired, `n_clusters` before small ones are dropped.

    Features are points on a sphere: squared distance 2 - 2C, with C taken in the 65 leading components of the window.
    Only clusters that touch in the graph of the 8 nearest neighbours merge. With fewer fired features than `n_clusters`
    each is a cluster of its own. None if no two features fired together.
    """
    tau = correlation.threshold(percentile)
    if tau is None:
        return None
    points = _points(correlation.profiles)
    model = AgglomerativeClustering(
        n_clusters=min(n_clusters, len(points)), linkage="ward", connectivity=_neighbour_graph(points)
    )
    return _groups(correlation, model.fit_predict(points), tau, min_size)


def _groups(
    correlation: FeatureCorrelation, label: Int[np.ndarray, " n_fired"], tau: float, min_size: int
) -> FeatureGroups:
    order = np.argsort(label, kind="stable")
    members = np.split(correlation.features.numpy()[order], np.cumsum(np.bincount(label))[:-1])
    groups = [torch.from_numpy(group) for group in members if len(group) >= min_size]
    groups.sort(key=lambda group: (-len(group), int(group[0])))
    return FeatureGroups(tuple(groups), tau)


def _points(profiles: Profiles) -> Float[np.ndarray, "n n_components"]:
    n_components = min(_N_COMPONENTS, len(profiles), len(profiles.by_token.indptr) - 1)
    svd = TruncatedSVD(n_components, n_iter=4, random_state=0)
    tokens = svd.fit_transform(profiles.by_token)
    # The window is sparse as long as it is not centred, so it is centred within the components.
    tokens -= tokens.mean(axis=0)
    variance, axes = np.linalg.eigh(tokens.T @ tokens)
    points = np.asarray(svd.components_).T @ (axes * np.sqrt(np.maximum(variance, 0)))
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(points.dtype).eps)


def _neighbour_graph(points: Float[np.ndarray, "n n_components"]) -> csr_array:
    """Nearest neighbours, with the components of their graph joined by a tree between the features at their centres."""
    graph = kneighbors_graph(points, min(_N_NEIGHBOURS, len(points) - 1))
    n_components, label = connected_components(graph, directed=False)
    members = [np.flatnonzero(label == component) for component in range(n_components)]
    centres = np.array(
        [part[np.square(points[part] - points[part].mean(axis=0)).sum(axis=1).argmin()] for part in members]
    )
    # One is added because a distance of 0 would be no edge.
    tree = minimum_spanning_tree(1 + pairwise_distances(points[centres])).tocoo()
    joins = coo_array((tree.data, (centres[tree.row], centres[tree.col])), shape=graph.shape)
    return csr_array(graph + joins)

"""Average linkage of features by correlation, exact, without a square matrix of all features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sae_lens_contrastive.feature_stats import FeatureCorrelation, Profiles
from sae_lens_contrastive.feature_stats.profiles import MAX_SQUARE

_IDENTICAL = 1 - 1e-5
_FEW = 0.02
_SLACK = 0.05


def average_linkage(correlation: FeatureCorrelation, tau: float) -> Int[np.ndarray, " n_fired"]:
    """Cluster of each column when average-linkage clusters of distance 1 - C are cut at 1 - tau, tau > 0.

    Average linkage is reducible: a merged cluster is never nearer to a third one than the nearer of its parts. So all
    pairs of clusters that are each other's nearest can merge at once and the tree is the same; a cluster's nearest is
    looked up anew only if one of the two merged; and a cluster without a partner above tau is finished (Sumengen et al.
    2021, "Scaling Hierarchical Agglomerative Clustering to Billion-sized Datasets"). Once few clusters are left, the
    nearest-neighbour chain on their own square of similarities ends the work.

    The result is that of average linkage on the whole of C, with one exception: in a round in which fewer than 2 % of
    more than 3000 clusters have found each other, because one large cluster is nearest to all, clusters also merge with
    a nearest that is at most 5 % nearer to another.

    scikit-learn's average linkage over a sparse graph averages over the graph's edges alone: with the pairs above tau
    as edges, all that is connected becomes one cluster.
    """
    n = len(correlation.features)
    clusters = _Clusters(
        correlation.profiles, np.ones(n), np.arange(n), correlation.partner, correlation.partner_correlation
    )
    links = []
    while (clusters.similarity > tau).sum() > MAX_SQUARE:
        clusters, merged = clusters.above(tau).merge_nearest()
        links.append(merged)
    left = np.flatnonzero(clusters.similarity > tau)
    chain = _chain(clusters.profiles.square(left), clusters.size[left], tau)
    links.append(clusters.root[left][np.array(chain, dtype=np.int64).reshape(-1, 2).T])
    return _connected(np.concatenate(links, axis=1), n)[1]


@dataclass(frozen=True)
class _Clusters:
    """Clusters that may still merge."""

    profiles: Profiles
    size: Float[np.ndarray, " n"]
    """Features in each cluster."""
    root: Int[np.ndarray, " n"]
    """One column of each cluster."""
    partner: Int[np.ndarray, " n"]
    """Nearest other cluster."""
    similarity: Float32[np.ndarray, " n"]
    """Mean correlation with it."""

    def above(self, tau: float) -> _Clusters:
        """Those that have a partner above tau."""
        keep = self.similarity > tau
        # Rounding may put one of a pair above tau and the other below.
        while (keep & ~keep[self.partner]).any():
            keep &= keep[self.partner]
        place = np.cumsum(keep) - 1
        return _Clusters(
            self.profiles.select(np.flatnonzero(keep)),
            self.size[keep],
            self.root[keep],
            place[self.partner[keep]],
            self.similarity[keep],
        )

    def merge_nearest(self) -> tuple[_Clusters, Int[np.ndarray, "2 n_links"]]:
        """Merge all pairs that are each other's nearest; the roots of merged pairs are the links."""
        index = np.arange(len(self.size))
        # Features that fire on one and the same token are identical: by pairs they would take many rounds.
        close = (self.partner[self.partner] == index) | (self.similarity > _IDENTICAL)
        if close.sum() < _FEW * len(index):
            close |= self.similarity >= (1 - _SLACK) * self.similarity[self.partner]
        pairs = np.flatnonzero(close)
        n_clusters, label = _connected(np.stack([pairs, self.partner[pairs]]), len(index))
        size = np.bincount(label, self.size)
        profiles = self.profiles.merged(label, self.size / size[label], n_clusters)
        merged = np.bincount(label) > 1
        root, partner = np.empty((2, n_clusters), dtype=np.int64)
        similarity = np.empty(n_clusters, dtype=np.float32)
        root[label], partner[label], similarity[label] = self.root, label[self.partner], self.similarity
        stale = np.flatnonzero(merged | merged[partner])
        partner[stale], similarity[stale] = profiles.nearest(stale)
        links = np.stack([self.root[pairs], self.root[self.partner[pairs]]])
        return _Clusters(profiles, size, root, partner, similarity), links


def _chain(similarity: Float32[np.ndarray, "n n"], size: Float[np.ndarray, " n"], tau: float) -> list[tuple[int, int]]:
    """Pairs to merge, by the nearest-neighbour chain; `similarity` and `size` are used up."""
    np.fill_diagonal(similarity, -np.inf)
    gone = np.zeros(len(size), dtype=similarity.dtype)  # -inf where a cluster is finished or merged into another
    links = []
    for start in range(len(size)):
        chain = [] if gone[start] else [start]
        while chain:
            row = similarity[chain[-1]] + gone
            nearest = int(row.argmax())
            # On a tie the chain turns back, so that it ends.
            if len(chain) > 1 and row[chain[-2]] >= row[nearest]:
                top, kept = chain.pop(), chain.pop()
                links.append((kept, top))
                share = size[kept] / (size[kept] + size[top])
                joint = share * similarity[kept] + (1 - share) * similarity[top]
                joint[kept] = -np.inf
                similarity[kept], similarity[:, kept] = joint, joint
                size[kept] += size[top]
                gone[top] = -np.inf
                if not chain:
                    chain = [kept]
            elif row[nearest] > tau:
                chain.append(nearest)
            else:
                gone[chain.pop()] = -np.inf
    return links


def _connected(links: Int[np.ndarray, "2 n_links"], n: int) -> tuple[int, Int[np.ndarray, " n"]]:
    graph = coo_array((np.ones(links.shape[1], dtype=np.int8), (links[0], links[1])), shape=(n, n))
    return connected_components(graph, directed=False)

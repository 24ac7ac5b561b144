"""How clusters of features change from one clustering to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError

_UNCLUSTERED = -1


@dataclass(frozen=True)
class ClusterChange:
    """A clustering against the one before.

    The heir of an old cluster is the new cluster that has most of its features, the parent of a new cluster is the old
    cluster that most of its features come from; on a tie the cluster that is listed first. A new cluster is an old one
    continued if each is the other's heir or parent.
    """

    n_kept: int
    """Old clusters that are continued."""
    n_split: int
    """Old clusters that are the parent of two or more new ones; one of these may continue it."""
    n_merged: int
    """New clusters that are the heir of two or more old ones; they may continue one of these."""
    n_born: int
    """New clusters none of whose features was clustered before."""
    n_died: int
    """Old clusters none of whose features is clustered now."""
    n_moved: int
    """Features clustered both times whose new cluster does not continue their old one."""
    adjusted_rand_index: float | None
    """Adjusted Rand index of the two clusterings of the features clustered both times; None if there are none."""


class ClusterTracker:
    """Keeps the last clustering and compares the next one with it.

    `update` gives the change since the clustering before, None for the first one.
    """

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self.step: int | None = None
        """Step of the last clustering."""
        self._last: Int[np.ndarray, " d_sae"] = np.full(d_sae, _UNCLUSTERED)

    def update(self, groups: Sequence[Int[Tensor, " size"]], step: int) -> ClusterChange | None:
        """Compare disjoint clusters of features, made at a step, with those of the last update."""
        now = np.full(self.d_sae, _UNCLUSTERED)
        for index, group in enumerate(groups):
            now[group.cpu().numpy()] = index
        change = None if self.step is None else _change(self._last, now)
        self._last, self.step = now, step
        return change

    def state_dict(self) -> dict[str, Tensor]:
        """The last clustering: the cluster of each feature, -1 outside all, and its step, -1 if there is none."""
        return {
            "clusters": torch.from_numpy(self._last),
            "step": torch.tensor(-1 if self.step is None else self.step),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a clustering over; `ConfigError` if it is of another dictionary."""
        last = state["clusters"].cpu().numpy()
        if len(last) != self.d_sae:
            raise ConfigError(f"The saved clusters are of d_sae {len(last)}; this SAE has d_sae {self.d_sae}.")
        step = int(state["step"])
        self._last, self.step = last, None if step < 0 else step


def _change(old: Int[np.ndarray, " d_sae"], new: Int[np.ndarray, " d_sae"]) -> ClusterChange:
    n_old, n_new = old.max() + 1, new.max() + 1
    both = (old != _UNCLUSTERED) & (new != _UNCLUSTERED)
    old, new = old[both], new[both]
    # Pairs of clusters that share features, those that share most first.
    pairs, shared = np.unique(np.stack([old, new]), axis=1, return_counts=True)
    pairs = pairs[:, np.lexsort((pairs[1], pairs[0], -shared))]
    parent, heir = np.full(n_new, _UNCLUSTERED), np.full(n_old, _UNCLUSTERED)
    parent[pairs[1, ::-1]] = pairs[0, ::-1]
    heir[pairs[0, ::-1]] = pairs[1, ::-1]
    continued = parent[heir[heir != _UNCLUSTERED]] == np.flatnonzero(heir != _UNCLUSTERED)
    return ClusterChange(
        n_kept=int(continued.sum()),
        n_split=int((np.bincount(parent[parent != _UNCLUSTERED]) > 1).sum()),
        n_merged=int((np.bincount(heir[heir != _UNCLUSTERED]) > 1).sum()),
        n_born=int((parent == _UNCLUSTERED).sum()),
        n_died=int((heir == _UNCLUSTERED).sum()),
        n_moved=int(((heir[old] != new) | (parent[new] != old)).sum()),
        adjusted_rand_index=float(adjusted_rand_score(old, new)) if len(old) else None,
    )

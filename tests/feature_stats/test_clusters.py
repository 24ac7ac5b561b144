"""Changes between clusterings, counted by hand."""

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import ClusterChange, ClusterTracker

OLD = [[0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10], [11, 12]]


def clusters(groups):
    return [torch.tensor(group) for group in groups]


def change(old, new):
    tracker = ClusterTracker(20)
    assert tracker.update(clusters(old), step=99) is None
    found = tracker.update(clusters(new), step=199)
    assert found is not None
    return found


def test_the_same_clusters_are_kept_whatever_their_order():
    assert change(OLD, OLD[::-1]) == ClusterChange(
        n_kept=4, n_split=0, n_merged=0, n_born=0, n_died=0, n_moved=0, adjusted_rand_index=1.0
    )


def test_every_kind_of_change_is_counted():
    # 0-5 splits into 0-3, which continues it, and 4-5; 6-8 and 9-10 merge, which continues 6-8;
    # 11-12 dies; 13-14 is born.
    found = change(OLD, [[0, 1, 2, 3], [6, 7, 8, 9, 10], [4, 5], [13, 14]])
    assert (found.n_kept, found.n_split, found.n_merged, found.n_born, found.n_died) == (2, 1, 1, 1, 1)
    assert found.n_moved == 4  # 4, 5, 9 and 10
    # Among 0-10: 6 + 3 pairs together both times, 19 in the old, 17 in the new clustering, 55 pairs in all.
    both, old, new, pairs = 6 + 1 + 3 + 1, 15 + 3 + 1, 6 + 10 + 1, 55
    expected = old * new / pairs
    assert found.adjusted_rand_index == pytest.approx((both - expected) / ((old + new) / 2 - expected))


def test_on_a_tie_the_first_cluster_continues():
    found = change([[0, 1, 2, 3]], [[2, 3], [0, 1]])
    assert (found.n_kept, found.n_split, found.n_moved) == (1, 1, 2)


def test_a_cluster_whose_heir_has_another_parent_is_not_continued():
    # 1 and 2 join 3-6, the parent of that cluster; 0 is the only old feature of its cluster, so that 0-2 is its parent.
    found = change([[0, 1, 2], [3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6], [0, 7, 8]])
    assert (found.n_kept, found.n_split, found.n_merged, found.n_born, found.n_died) == (1, 0, 1, 0, 0)
    assert found.n_moved == 3


@pytest.mark.parametrize(
    ("old", "new", "n_died", "n_born"), [(OLD, [], 4, 0), ([], OLD, 0, 4), ([[0, 1]], [[2, 3]], 1, 1)]
)
def test_clusterings_without_common_features(old, new, n_died, n_born):
    found = change(old, new)
    assert (found.n_kept, found.n_died, found.n_born, found.n_moved) == (0, n_died, n_born, 0)
    assert found.adjusted_rand_index is None


def test_a_saved_clustering_continues():
    tracker, again = ClusterTracker(20), ClusterTracker(20)
    again.load_state_dict(tracker.state_dict())
    assert again.update(clusters(OLD), step=4) is None
    tracker.load_state_dict(again.state_dict())
    assert tracker.step == 4
    assert tracker.update(clusters(OLD[:2]), step=9) == again.update(clusters(OLD[:2]), step=9)
    with pytest.raises(ConfigError, match="d_sae 3"):
        ClusterTracker(3).load_state_dict(tracker.state_dict())

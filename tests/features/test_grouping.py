"""Planted groups are found, and nothing else; large windows are grouped as small ones are."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import CorrelationTracker, profiles
from sae_lens_contrastive.features import linkage
from sae_lens_contrastive.features.grouping import (
    GroupingOptions,
    cluster_features,
    form_groups,
    group_features,
)


def correlation_of(acts):
    tracker = CorrelationTracker(acts.shape[1], tokens_per_update=len(acts))
    tracker.update(acts)
    correlation = tracker.compute()
    assert correlation is not None
    return correlation


def planted(groups, d_sae=30, n_tokens=2000, noise=0.05):
    """Every token belongs to one pattern; the features of a group share theirs, all others have their own."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.arange(d_sae)
    for group in groups:
        pattern[group] = group[0]
    fires = torch.randint(0, d_sae, (n_tokens, 1), generator=generator) == pattern
    strength = torch.rand(n_tokens, 1, generator=generator) + 0.5
    return fires * (strength + noise * torch.rand(n_tokens, d_sae, generator=generator))


def tangled(d_sae=300, n_tokens=500, seed=1):
    """Features with overlapping sources, so that clusters merge at many levels."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.rand(n_tokens, 40, generator=generator) * (torch.rand(n_tokens, 40, generator=generator) < 0.05)
    mix = torch.rand(40, d_sae, generator=generator) * (torch.rand(40, d_sae, generator=generator) < 0.06)
    own = torch.rand(n_tokens, d_sae, generator=generator) * (torch.rand(n_tokens, d_sae, generator=generator) < 0.02)
    return sources @ mix + 0.3 * own


def listed(found):
    assert found is not None
    return [sorted(group.tolist()) for group in found.groups]


def reference(correlation, tau):
    """Average linkage of the whole matrix by scikit-learn."""
    distance = 1 - correlation.profiles.square(np.arange(len(correlation.features))).clip(max=1)
    np.fill_diagonal(distance, 0)
    model = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - tau
    )
    labels = model.fit_predict(distance)
    features = correlation.features.numpy()
    return sorted(sorted(features[labels == label].tolist()) for label in range(labels.max() + 1))


def test_planted_groups_are_found():
    groups = [[2, 9, 17, 25], [4, 11, 20]]
    assert listed(group_features(correlation_of(planted(groups)), percentile=0, min_size=2)) == groups


def test_the_minimum_size_drops_small_groups():
    groups = [[2, 9, 17, 25], [4, 11, 20]]
    assert listed(group_features(correlation_of(planted(groups)), percentile=0, min_size=4)) == groups[:1]


def test_a_higher_percentile_splits_groups():
    correlation = correlation_of(planted([[1, 2, 3, 4, 5, 6]], noise=1.0))
    whole = group_features(correlation, percentile=0, min_size=2)
    parts = group_features(correlation, percentile=90, min_size=2)
    assert whole is not None
    assert parts is not None
    assert parts.threshold > whole.threshold
    assert len(parts.groups[0]) < len(whole.groups[0]) == 6


@pytest.mark.parametrize("max_square", [3000, 30], ids=["by a square", "by rounds"])
@pytest.mark.parametrize("products", [1e-9, 1e9], ids=["sparse", "dense"])
@pytest.mark.parametrize("percentile", [50, 75, 95])
def test_groups_are_those_of_average_linkage(monkeypatch, max_square, products, percentile):
    monkeypatch.setattr(linkage, "MAX_SQUARE", max_square)
    monkeypatch.setattr(profiles, "DENSE_SPEED", products)
    correlation = correlation_of(tangled())
    found = group_features(correlation, percentile, min_size=2)
    assert found is not None
    assert len(found.groups) > 10
    expected = [group for group in reference(correlation, found.threshold) if len(group) > 1]
    assert sorted(listed(found)) == expected


def test_rounds_find_planted_groups_of_any_size(monkeypatch):
    monkeypatch.setattr(linkage, "MAX_SQUARE", 10)
    groups = [list(range(0, 120, 2)), list(range(1, 120, 4)), [121, 123]]
    assert listed(group_features(correlation_of(planted(groups, d_sae=130)), percentile=0, min_size=2)) == groups


def counted_rounds(monkeypatch):
    calls = []
    merge_nearest = linkage._Clusters.merge_nearest

    def counting(clusters):
        calls.append(len(clusters.size))
        return merge_nearest(clusters)

    monkeypatch.setattr(linkage._Clusters, "merge_nearest", counting)
    return calls


def test_identical_features_take_one_round(monkeypatch):
    monkeypatch.setattr(linkage, "MAX_SQUARE", 30)
    rounds = counted_rounds(monkeypatch)
    acts = torch.zeros(50, 200)
    for feature in range(200):
        acts[feature % 4, feature] = 1.0 + feature
    found = group_features(correlation_of(acts), percentile=0, min_size=2)
    assert listed(found) == [list(range(start, 200, 4)) for start in range(4)]
    assert len(rounds) == 1


def test_a_cluster_that_is_nearest_to_all_takes_few_rounds(monkeypatch):
    monkeypatch.setattr(linkage, "MAX_SQUARE", 500)
    generator = torch.Generator().manual_seed(0)
    # C_ij is about q_i q_j: the clearest features are nearest to every other.
    q = torch.linspace(0.95, 0.3, 1000)
    shared = torch.rand(300, 1, generator=generator)
    acts = 2 + q * (shared - 0.5) + (1 - q**2).sqrt() * (torch.rand(300, 1000, generator=generator) - 0.5)
    correlation = correlation_of(acts)
    rounds = counted_rounds(monkeypatch)
    found = listed(group_features(correlation, percentile=50, min_size=2))
    n_rounds = len(rounds)
    monkeypatch.setattr(linkage, "_FEW", 0.0)
    exact = listed(group_features(correlation, percentile=50, min_size=2))
    assert n_rounds < 15 < 60 < len(rounds) - n_rounds
    assert len(set(found[0]) ^ set(exact[0])) < 0.05 * len(exact[0])


def test_grouping_a_wide_dictionary_makes_no_square_matrix():
    d_sae = 6000
    generator = torch.Generator().manual_seed(0)
    acts = torch.rand(256, d_sae, generator=generator) * (torch.rand(256, d_sae, generator=generator) < 0.01)
    correlation = correlation_of(acts)
    tracemalloc.start()
    try:
        found = group_features(correlation, percentile=75, min_size=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.groups
    assert peak < 4 * d_sae**2  # a square of 32-bit numbers


def test_no_group_where_nothing_fires_together():
    correlation = correlation_of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert group_features(correlation, percentile=75, min_size=2) is None
    assert cluster_features(correlation, percentile=75, min_size=2, n_clusters=2) is None


PLANTED = [list(range(start, 60, 5)) for start in range(5)]


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_hierarchical_clusters_are_the_planted_ones(noise):
    correlation = correlation_of(planted(PLANTED, d_sae=60, noise=noise))
    found = cluster_features(correlation, percentile=75, min_size=2, n_clusters=5)
    assert listed(found) == PLANTED
    assert found is not None
    assert found.threshold == correlation.threshold(75)


def test_fewer_hierarchical_clusters_join_whole_groups():
    correlation = correlation_of(planted(PLANTED, d_sae=60))
    found = listed(cluster_features(correlation, percentile=75, min_size=2, n_clusters=3))
    assert len(found) == 3
    for group in PLANTED:
        assert sum(set(group) <= set(cluster) for cluster in found) == 1


def test_hierarchical_clusters_do_not_follow_how_strong_features_are():
    acts = planted(PLANTED, d_sae=60) * torch.logspace(-2, 2, 60)
    found = cluster_features(correlation_of(acts), percentile=75, min_size=2, n_clusters=5)
    assert listed(found) == PLANTED


def test_with_fewer_features_than_clusters_none_is_grouped():
    found = cluster_features(correlation_of(planted([[0, 1, 2]], d_sae=3)[:, :3]), 75, min_size=2, n_clusters=32)
    assert listed(found) == []


def test_the_options_choose_the_method():
    correlation = correlation_of(planted(PLANTED, d_sae=60))
    by_threshold = form_groups(correlation, GroupingOptions(percentile=0))
    hierarchical = form_groups(correlation, GroupingOptions(percentile=0, method="hierarchical", n_clusters=3))
    assert listed(by_threshold) == PLANTED
    assert len(listed(hierarchical)) == 3
    assert listed(form_groups(correlation, GroupingOptions(percentile=0, min_size=13))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "must be 1 or more"),
        ({"window_tokens": 0}, "must be 1 or more"),
        ({"percentile": 100.0}, r"must be in \[0, 100\)"),
        ({"min_size": 1}, "2 or more features"),
        ({"method": "thresold"}, r"'thresold'. Did you mean 'threshold'\? Allowed: hierarchical, threshold"),
        ({"n_clusters": 1}, "must be 2 or more"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GroupingOptions(**options)

"""Planted groups are found, and nothing else."""

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import CorrelationTracker
from sae_lens_contrastive.features.grouping import GroupingOptions, group_features


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


def test_planted_groups_are_found():
    groups = [[2, 9, 17, 25], [4, 11, 20]]
    found = group_features(correlation_of(planted(groups)), percentile=0, min_size=2)
    assert found is not None
    assert [sorted(group.tolist()) for group in found.groups] == groups


def test_the_minimum_size_drops_small_groups():
    found = group_features(correlation_of(planted([[2, 9, 17, 25], [4, 11, 20]])), percentile=0, min_size=4)
    assert found is not None
    assert [sorted(group.tolist()) for group in found.groups] == [[2, 9, 17, 25]]


def test_a_higher_percentile_splits_groups():
    correlation = correlation_of(planted([[1, 2, 3, 4, 5, 6]], noise=1.0))
    whole = group_features(correlation, percentile=0, min_size=2)
    parts = group_features(correlation, percentile=90, min_size=2)
    assert whole is not None
    assert parts is not None
    assert parts.threshold > whole.threshold
    assert len(parts.groups[0]) < len(whole.groups[0]) == 6


def test_groups_do_not_depend_on_the_component_split():
    # The components shortcut must equal clustering the whole matrix at once.
    from sklearn.cluster import AgglomerativeClustering

    generator = torch.Generator().manual_seed(1)
    acts = torch.rand(500, 40, generator=generator) * (torch.rand(500, 40, generator=generator) < 0.1)
    acts[:, 1:4] += acts[:, :1]
    correlation = correlation_of(acts)
    found = group_features(correlation, percentile=85, min_size=2)
    assert found is not None
    everything = torch.arange(len(correlation.features))
    distance = (1 - correlation.among(everything)).clamp(min=0).fill_diagonal_(0).numpy()
    model = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - found.threshold
    )
    labels = model.fit_predict(distance)
    expected = {
        frozenset(correlation.features[torch.from_numpy(labels == label)].tolist()) for label in set(labels.tolist())
    }
    assert {frozenset(group.tolist()) for group in found.groups} == {group for group in expected if len(group) > 1}


def test_no_group_where_nothing_fires_together():
    correlation = correlation_of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert group_features(correlation, percentile=75, min_size=2) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "must be 1 or more"),
        ({"percentile": 100.0}, r"must be in \[0, 100\)"),
        ({"min_size": 1}, "2 or more features"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GroupingOptions(**options)

"""Correlation windows: values, the adaptive threshold, merging and saving."""

import numpy as np
import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import CorrelationTracker


def sparse_acts(n_tokens=400, d_sae=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    acts = torch.rand(n_tokens, d_sae, generator=generator)
    return acts * (torch.rand(n_tokens, d_sae, generator=generator) < 0.4)


def computed(acts, **kwargs):
    tracker = CorrelationTracker(acts.shape[1], tokens_per_update=len(acts), **kwargs)
    tracker.update(acts)
    correlation = tracker.compute()
    assert correlation is not None
    return correlation


def test_correlations_are_pearsons():
    acts = sparse_acts()
    correlation = computed(acts)
    expected = np.corrcoef(acts.numpy().T)
    full = torch.cat([block.correlation for block in correlation.blocks()])
    np.testing.assert_allclose(full.numpy(), expected, atol=1e-5)
    columns = torch.tensor([3, 1, 7])
    np.testing.assert_allclose(correlation.among(columns).numpy(), expected[[3, 1, 7]][:, [3, 1, 7]], atol=1e-5)


def test_the_threshold_is_the_percentile_over_pairs_that_fired_together():
    acts = sparse_acts()
    # Feature 10 fires alone: its pairs do not count, however strong their negative correlation.
    acts[:, 10] = 0
    acts[:50] = 0
    acts[:50, 10] = 1.0
    correlation = computed(acts)
    expected = np.abs(np.corrcoef(acts.numpy().T))
    fires = (acts > 0).float()
    together = (fires.T @ fires).numpy() > 0
    upper = np.triu(np.ones_like(expected, dtype=bool), k=1) & together
    for percentile in (25, 75, 85):
        wanted = np.percentile(expected[upper], percentile, method="inverted_cdf")
        assert correlation.threshold(percentile) == pytest.approx(wanted, abs=1 / 4096)


def test_features_that_never_vary_are_left_out():
    acts = sparse_acts()
    acts[:, 2] = 0.0
    acts[:, 5] = 3.3
    assert computed(acts).features.tolist() == [i for i in range(12) if i not in (2, 5)]


def test_no_correlation_without_two_varying_features():
    tracker = CorrelationTracker(4, tokens_per_update=8)
    assert tracker.compute() is None
    tracker.update(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    assert tracker.compute() is None


def test_features_that_never_fire_together_have_no_threshold():
    assert computed(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).threshold(75) is None


def test_tokens_are_sampled_evenly_over_the_batch():
    tracker = CorrelationTracker(1, tokens_per_update=4)
    tracker.update(torch.arange(16.0).unsqueeze(1))
    assert tracker.state_dict()["window"].squeeze(1).tolist() == [0, 4, 8, 12]


def test_two_trackers_merge_into_one_pass():
    first, second = sparse_acts(seed=1), sparse_acts(seed=2)
    one = CorrelationTracker(12, tokens_per_update=400)
    one.update(first)
    one.update(second)
    left, right = CorrelationTracker(12, tokens_per_update=400), CorrelationTracker(12, tokens_per_update=400)
    left.update(first)
    right.update(second)
    left.merge(right)
    a, b = one.compute(), left.compute()
    assert a is not None
    assert b is not None
    assert torch.equal(a.unit, b.unit)


def test_a_saved_window_continues():
    tracker = CorrelationTracker(12, tokens_per_update=400)
    tracker.update(sparse_acts())
    again = CorrelationTracker(12, tokens_per_update=400)
    again.load_state_dict(tracker.state_dict())
    assert torch.equal(again.state_dict()["window"], tracker.state_dict()["window"])
    with pytest.raises(ConfigError, match="d_sae 7"):
        CorrelationTracker(7, tokens_per_update=1).load_state_dict(tracker.state_dict())


def test_reset_starts_an_empty_window():
    tracker = CorrelationTracker(12, tokens_per_update=400)
    tracker.update(sparse_acts())
    tracker.reset()
    assert tracker.compute() is None

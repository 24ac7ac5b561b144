"""Correlation windows: values, the adaptive threshold, memory, merging and saving."""

import tracemalloc

import numpy as np
import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import CorrelationTracker, correlation, profiles


@pytest.fixture(params=["sparse", "dense"])
def products(request, monkeypatch):
    """Compute with sparse products, or with dense ones."""
    monkeypatch.setattr(profiles, "DENSE_SPEED", {"sparse": 1e-9, "dense": 1e9}[request.param])
    return request.param


def sparse_acts(n_tokens=400, d_sae=12, seed=0, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    acts = torch.rand(n_tokens, d_sae, generator=generator)
    return acts * (torch.rand(n_tokens, d_sae, generator=generator) < share)


def tracked(*batches):
    tracker = CorrelationTracker(batches[0].shape[1], tokens_per_update=10**6)
    for batch in batches:
        tracker.update(batch)
    return tracker


def computed(acts):
    found = tracked(acts).compute()
    assert found is not None
    return found


def together(acts):
    fires = (acts > 0).double()
    return ((fires.T @ fires) > 0).numpy()


def test_correlations_are_pearsons(products):
    acts = sparse_acts()
    found = computed(acts)
    assert (found.profiles.dense is not None) == (products == "dense")
    expected = np.corrcoef(acts.numpy().T)
    np.testing.assert_allclose(found.profiles.square(np.arange(12)), expected, atol=1e-5)
    columns = torch.tensor([3, 1, 7])
    np.testing.assert_allclose(found.profiles.square(columns.numpy()), expected[[3, 1, 7]][:, [3, 1, 7]], atol=1e-5)


def test_a_feature_that_is_always_on_keeps_its_precision(products):
    acts = sparse_acts(share=0.1)
    acts[:, 4] = 50 + acts[:, 5]
    expected = np.corrcoef(acts.double().numpy().T)
    np.testing.assert_allclose(computed(acts).profiles.square(np.arange(12)), expected, atol=1e-4)


def test_partners_correlate_highest(products, monkeypatch):
    monkeypatch.setattr(profiles, "_BLOCK_ENTRIES", 5 * 12)  # several blocks, the last one smaller
    acts = sparse_acts()
    acts[:, 2] += acts[:, 9]
    acts[:, 6] += 2 * acts[:, 9]
    found = computed(acts)
    expected = np.corrcoef(acts.numpy().T)
    np.fill_diagonal(expected, -1)
    assert found.partner.tolist() == expected.argmax(axis=1).tolist()
    assert [found.partner[i] for i in (2, 6, 9)] == [9, 9, 6]
    np.testing.assert_allclose(found.partner_correlation, expected.max(axis=1), atol=1e-5)


def test_the_threshold_is_the_percentile_over_pairs_that_fired_together(products):
    acts = sparse_acts()
    # Feature 10 fires alone: its pairs do not count, however strong their negative correlation.
    acts[:, 10] = 0
    acts[:50] = 0
    acts[:50, 10] = 1.0
    found = computed(acts)
    expected = np.abs(np.corrcoef(acts.numpy().T))
    upper = np.triu(np.ones_like(expected, dtype=bool), k=1) & together(acts)
    assert found.histogram.sum() == 2 * upper.sum() == 2 * 55
    percents = (25, 75, 85)
    wanted = np.percentile(expected[upper], percents, method="inverted_cdf")
    assert found.percentiles(percents) == pytest.approx(wanted, abs=1 / 8192)
    assert found.threshold(75) == pytest.approx(wanted[1], abs=1 / 8192)
    assert found.threshold(0) == pytest.approx(expected[upper].min(), abs=1 / 8192)


def test_wide_dense_windows_count_a_sample_of_the_pairs(products, monkeypatch):
    monkeypatch.setattr(profiles, "_HISTOGRAM_PAIRS", 12**2 // 3)
    found = computed(sparse_acts())
    assert found.histogram.sum() == (4 if products == "dense" else 12) * 11


def test_features_that_never_vary_are_left_out():
    acts = sparse_acts()
    acts[:, 2] = 0.0
    acts[:, 5] = 3.3
    acts[:, 7] = 3.3 + 1e-5 * acts[:, 7]
    assert computed(acts).features.tolist() == [i for i in range(12) if i not in (2, 5, 7)]


def test_no_correlation_without_two_varying_features():
    assert CorrelationTracker(4, tokens_per_update=8).compute() is None
    assert tracked(torch.zeros(3, 4)).compute() is None
    assert tracked(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])).compute() is None


def test_features_that_never_fire_together_have_no_threshold(products):
    found = computed(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert found.threshold(75) is None
    assert found.percentiles((50, 99)) is None


def kept(tracker):
    return tracker.state_dict()["values"].tolist()


def test_tokens_are_sampled_evenly_over_the_batch():
    tracker = CorrelationTracker(1, tokens_per_update=4)
    tracker.update(torch.arange(1.0, 17).unsqueeze(1))
    assert kept(tracker) == [1, 5, 9, 13]
    tracker.update(torch.arange(101.0, 111).unsqueeze(1), n_tokens=3)
    assert kept(tracker)[4:] == [101, 104, 107]
    tracker.update(torch.tensor([[7.0]]))
    tracker.update(torch.tensor([[8.0]]), n_tokens=0)
    assert kept(tracker)[7:] == [7]


def test_the_window_keeps_active_entries_only():
    acts = sparse_acts(n_tokens=1000, d_sae=500, share=0.02)
    state = tracked(acts.double()).state_dict()
    n_active = int((acts > 0).sum())
    assert {name: (tensor.dtype, len(tensor)) for name, tensor in state.items() if tensor.ndim} == {
        "values": (torch.float32, n_active),
        "features": (torch.int32, n_active),
        "n_active": (torch.int32, 1000),
    }


@pytest.mark.parametrize("share", [0.004, 0.15])
def test_no_square_matrix_of_a_wide_dictionary_is_made(share):
    d_sae = 6000
    tracker = tracked(sparse_acts(n_tokens=256, d_sae=d_sae, share=share))
    tracemalloc.start()
    try:
        assert tracker.compute() is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < d_sae**2  # a square of bytes; of floats it would be four times that


def test_a_window_that_costs_too_much_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(correlation, "_MAX_WORK", 40)
    monkeypatch.setattr(correlation, "_MIN_TOKENS", 2)
    # Every token costs min(2², 4² / speed).
    monkeypatch.setattr(correlation, "DENSE_SPEED", 1)
    first, second = torch.zeros(12, 4), torch.zeros(8, 4)
    for acts, shift in ((first, 1), (second, 13)):
        acts[:, 0] = torch.arange(shift, shift + len(acts))
        acts[:, 1] = 1
    found = tracked(first, second).compute()
    assert found is None  # one feature never varies
    window = tracked(first, second)._bounded_window()
    assert window.toarray()[:, 0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    monkeypatch.setattr(correlation, "_MIN_TOKENS", 15)
    assert tracked(first, second)._bounded_window().shape == (15, 4)
    monkeypatch.setattr(correlation, "DENSE_SPEED", 8)
    assert tracked(first, second)._bounded_window().shape == (20, 4)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_trackers_merge_into_one_pass():
    first, second = sparse_acts(seed=1), sparse_acts(seed=2)
    one, left, right = tracked(first, second), tracked(first), tracked(second)
    left.merge(right)
    assert same(one.state_dict(), left.state_dict())
    a, b = one.compute(), left.compute()
    assert a is not None
    assert b is not None
    assert np.array_equal(a.histogram, b.histogram)
    assert np.array_equal(a.partner_correlation, b.partner_correlation)


def test_a_saved_window_continues():
    first, second = sparse_acts(seed=1), sparse_acts(seed=2)
    first[3] = 0  # a token without active features is kept too
    again = CorrelationTracker(12, tokens_per_update=400)
    again.load_state_dict(tracked(first).state_dict())
    again.update(second)
    assert same(again.state_dict(), tracked(first, second).state_dict())
    with pytest.raises(ConfigError, match="d_sae 7"):
        CorrelationTracker(7, tokens_per_update=1).load_state_dict(again.state_dict())


def test_an_empty_window_is_saved_too():
    tracker = tracked(sparse_acts())
    tracker.load_state_dict(CorrelationTracker(12, tokens_per_update=1).state_dict())
    assert tracker.compute() is None


def test_reset_starts_an_empty_window():
    tracker = tracked(sparse_acts())
    tracker.reset()
    assert tracker.compute() is None
    assert kept(tracker) == []

"""Stability: cosines, clusterings and ranks against the update before."""

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import StabilityOptions, StabilityTracker


def compared(first, second):
    tracker = StabilityTracker()
    assert tracker.update(*first) is None
    stability = tracker.update(*second)
    assert stability is not None
    return stability


def groups(*members):
    return [torch.tensor(group) for group in members]


def test_cosines_by_hand():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    after = torch.tensor([[5.0, 0.0], [0.0, 1.0], [3.0, 4.0], [0.0, -1.0]])
    stability = compared([before], [after])
    # 1, 1, 0.6, -1
    assert stability.decoder_cosine_mean == pytest.approx(0.4, abs=1e-6)
    assert stability.decoder_cosine_p5 == pytest.approx(-1 + 0.15 * 1.6, abs=1e-6)
    assert stability.adjusted_rand_index is None
    assert stability.importance_spearman is None


def test_keeping_16_bits_costs_no_digit_that_is_read():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 300, generator=generator)
    moved = rows + 0.1 * torch.randn(50, 300, generator=generator)
    exact = torch.nn.functional.cosine_similarity(rows.double(), moved.double()).mean()
    assert compared([rows], [moved]).decoder_cosine_mean == pytest.approx(float(exact), abs=1e-6)


def test_clusterings_are_compared_on_the_features_in_both():
    W_dec = torch.eye(8)
    same = compared([W_dec, groups([0, 1], [2, 3, 4])], [W_dec, groups([2, 3, 4], [0, 1, 7])])
    assert same.adjusted_rand_index == 1.0
    # On 0..5: {01}{23}{45} against {012}{345}: 2 pairs of 15 agree in both, 3 and 6 are expected to give 1.2.
    mixed = compared([W_dec, groups([0, 1], [2, 3], [4, 5, 6])], [W_dec, groups([0, 1, 2], [3, 4, 5])])
    assert mixed.adjusted_rand_index == pytest.approx((2 - 1.2) / ((3 + 6) / 2 - 1.2))
    assert compared([W_dec, groups([0, 1])], [W_dec, groups([2, 3])]).adjusted_rand_index is None


def test_importances_are_compared_by_rank():
    W_dec = torch.eye(4)
    importance = torch.tensor([0.1, 0.2, 0.3, 0.9])
    rising = torch.tensor([0.0, 0.01, 0.02, 0.03])
    swapped = torch.tensor([0.2, 0.1, 0.3, 0.9])
    assert compared([W_dec, None, importance], [W_dec, None, rising]).importance_spearman == pytest.approx(1.0)
    # 1 - 6 * (1 + 1) / (4 * 15)
    assert compared([W_dec, None, importance], [W_dec, None, swapped]).importance_spearman == pytest.approx(0.8)
    assert compared([W_dec, None, importance], [W_dec, None, torch.ones(4)]).importance_spearman is None
    assert compared([W_dec, None, None], [W_dec, None, importance]).importance_spearman is None


def test_what_is_kept_does_not_change_with_the_weights():
    tracker = StabilityTracker()
    W_dec, importance = torch.eye(3), torch.tensor([0.1, 0.2, 0.3])
    tracker.update(W_dec, None, importance)
    W_dec[0] = torch.tensor([0.0, 1.0, 0.0])
    importance.copy_(importance.flip(0))
    stability = tracker.update(W_dec, None, importance)
    assert stability.decoder_cosine_mean == pytest.approx(2 / 3)
    assert stability.importance_spearman == pytest.approx(-1)


def test_a_saved_tracker_continues():
    generator = torch.Generator().manual_seed(0)
    states = [(torch.randn(6, 3, generator=generator), groups([0, 1], [2, 5]), torch.rand(6)) for _ in range(2)]
    tracker, again = StabilityTracker(), StabilityTracker()
    tracker.update(*states[0])
    again.load_state_dict(tracker.state_dict())
    assert again.update(*states[1]) == tracker.update(*states[1])
    with pytest.raises(ConfigError, match=r"shape \(6, 3\); this SAE has \(7, 3\)"):
        again.update(torch.randn(7, 3))


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="every_n_steps is 0"):
        StabilityOptions(every_n_steps=0)

"""Mutual information of firing and the forget domain: values by hand, exact counts, planted features."""

from math import log

import pytest
import torch
from sklearn.metrics import mutual_info_score

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import MutualInformationTracker

FORGET = torch.tensor([True] * 4 + [False] * 4)


def information(feature_acts, is_forget):
    tracker = MutualInformationTracker(feature_acts.shape[1])
    tracker.update(feature_acts, is_forget)
    return tracker.compute()


def noisy(n_tokens=4000, d_sae=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    acts = torch.rand(n_tokens, d_sae, generator=generator)
    return acts * (torch.rand(n_tokens, d_sae, generator=generator) < 0.2), torch.arange(n_tokens) % 4 == 0


def test_values_by_hand():
    columns = {
        "on forget tokens alone": [1, 1, 1, 1, 0, 0, 0, 0],
        "on the others alone": [0, 0, 0, 0, 1, 1, 1, 1],
        "always": [1, 1, 1, 1, 1, 1, 1, 1],
        "never": [0, 0, 0, 0, 0, 0, 0, 0],
        "independent": [1, 1, 0, 0, 1, 1, 0, 0],
        "three of four": [1, 1, 1, 0, 1, 0, 0, 0],
    }
    # H(y) = ln 2; given the last feature, y is 3 to 1 either way.
    left = log(2) + 0.75 * log(0.75) + 0.25 * log(0.25)
    found = information(torch.tensor(list(columns.values())).T * 0.3, FORGET)
    assert found.tolist() == pytest.approx([log(2), log(2), 0, 0, 0, left], abs=1e-7)


def test_a_perfect_feature_has_the_entropy_of_the_label():
    is_forget = torch.tensor([True] + [False] * 9)
    entropy = -(0.1 * log(0.1) + 0.9 * log(0.9))
    assert information(is_forget[:, None].float(), is_forget).item() == pytest.approx(entropy)


def test_values_are_those_of_scikit_learn():
    acts, is_forget = noisy()
    expected = [mutual_info_score(is_forget.numpy(), (acts[:, i] > 0).numpy()) for i in range(20)]
    assert information(acts, is_forget).tolist() == pytest.approx(expected, abs=1e-8)


def test_planted_domain_features_come_first():
    acts, is_forget = noisy()
    acts[is_forget, 7] += 1.0
    acts[is_forget, 12] = 0.0
    assert information(acts, is_forget).topk(2).indices.tolist() == [7, 12]


def test_counts_do_not_depend_on_batches_and_trackers():
    acts, is_forget = noisy()
    whole = MutualInformationTracker(20)
    whole.update(acts, is_forget)
    first, second = MutualInformationTracker(20), MutualInformationTracker(20)
    first.update(acts[:1000], is_forget[:1000])
    first.update(acts[1000:1500], is_forget[1000:1500])
    second.update(acts[1500:], is_forget[1500:])
    second.merge(first)
    for name, counts in whole.state_dict().items():
        assert counts.dtype == torch.int64
        assert torch.equal(second.state_dict()[name], counts)


def test_a_new_tracker_goes_to_the_device_of_the_one_that_is_merged_into_it():
    tracker, counted = MutualInformationTracker(4), MutualInformationTracker(4)
    counted.load_state_dict({name: counts.to("meta") for name, counts in counted.state_dict().items()})
    tracker.merge(counted)
    assert {counts.device.type for counts in tracker.state_dict().values()} == {"meta"}
    assert tracker.compute().device.type == "meta"


def test_a_saved_tracker_continues_and_a_reset_one_starts_anew():
    acts, is_forget = noisy()
    whole, part, again = (MutualInformationTracker(20) for _ in range(3))
    whole.update(acts, is_forget)
    part.update(acts[:700], is_forget[:700])
    again.load_state_dict(part.state_dict())
    again.update(acts[700:], is_forget[700:])
    assert torch.equal(again.compute(), whole.compute())
    again.reset()
    assert again.compute().tolist() == [0.0] * 20
    with pytest.raises(ConfigError, match="d_sae 7"):
        MutualInformationTracker(7).load_state_dict(whole.state_dict())
    with pytest.raises(ConfigError, match="d_sae 7"):
        MutualInformationTracker(7).merge(whole)

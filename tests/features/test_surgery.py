"""Pruning: who is masked, and that masks hold in every architecture."""

import copy

import pytest
import torch
from made_saes import FEATURES, OTHERS, batch, each_architecture, forward, mask, slices, step, trained
from sae_lens import SAE

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.surgery import PruningOptions, feature_parameters, features_to_prune, prune

IMPORTANCE = torch.tensor([0.5, 0.002, 0.02, 0.004, 0.0, 0.009, 0.011, 0.004, 0.3, 0.001])


@pytest.mark.parametrize(
    ("share", "threshold", "pruned", "expected"),
    [
        (0.3, 0.01, [], [4, 9, 1]),
        (0.5, 0.01, [], [4, 9, 1, 3, 7]),
        (0.9, 0.01, [], [4, 9, 1, 3, 7, 5]),
        (0.3, 0.01, [4], [9, 1]),
        (0.4, 0.01, [8, 2], [4, 9]),
        (0.3, 0.01, [0, 2, 8, 6], []),
    ],
)
def test_the_least_important_are_pruned_below_the_threshold_as_far_as_the_share_goes(
    share, threshold, pruned, expected
):
    already = torch.zeros(10, dtype=torch.bool).index_fill(0, torch.tensor(pruned, dtype=torch.int64), True)
    found = features_to_prune(IMPORTANCE, already, PruningOptions(share=share, threshold=threshold))
    assert found.tolist() == expected


@each_architecture
def test_pruned_features_are_silent_and_the_others_untouched(architecture):
    sae, optimizer = trained(architecture)
    before = copy.deepcopy(sae.state_dict())
    assert (forward(sae, batch(9)).feature_acts[:, FEATURES] > 0).any()
    prune(sae, optimizer, FEATURES)
    output = forward(sae, batch(9))
    assert (output.feature_acts[:, FEATURES] == 0).all()
    assert (output.hidden_pre[:, FEATURES] == 0).all()
    assert output.sae_out.isfinite().all()
    assert torch.equal(sae.W_dec, before["W_dec"])
    for name, (parameter, _) in feature_parameters(sae).items():
        assert torch.equal(slices(parameter, name, OTHERS), slices(before[name], name, OTHERS)), name


@each_architecture
def test_the_moments_of_pruned_features_are_reset_and_no_others(architecture):
    sae, optimizer = trained(architecture)
    before = copy.deepcopy({name: optimizer.state[parameter] for name, parameter in sae.named_parameters()})
    prune(sae, optimizer, FEATURES)
    for name, (parameter, _) in feature_parameters(sae).items():
        for moment in ("exp_avg", "exp_avg_sq"):
            old, new = before[name][moment], optimizer.state[parameter][moment]
            assert slices(old, name).any() or name == "threshold", name
            assert not slices(new, name).any(), name
            assert torch.equal(slices(new, name, OTHERS), slices(old, name, OTHERS)), name
    assert torch.equal(optimizer.state[sae.b_dec]["exp_avg"], before["b_dec"]["exp_avg"])


@each_architecture
def test_masked_features_stay_as_they_are_over_steps(architecture):
    sae, optimizer = trained(architecture)
    prune(sae, optimizer, FEATURES)
    before = copy.deepcopy(sae.state_dict())
    for seed in range(5):
        # The host's losses for dead features pull on masked ones too.
        step(sae, optimizer, batch(seed), dead=mask(), pruned=mask())
    for name, (parameter, _) in feature_parameters(sae).items():
        assert torch.equal(slices(parameter, name), slices(before[name], name)), name
        assert not torch.equal(slices(parameter, name, OTHERS), slices(before[name], name, OTHERS)), name


def test_without_the_mask_the_host_would_revive_them():
    sae, optimizer = trained("topk")
    prune(sae, optimizer, FEATURES)
    step(sae, optimizer, batch(), dead=mask())
    assert slices(sae.W_enc, "W_enc").any()


@each_architecture
def test_a_saved_stock_sae_has_pruned_features_silent(architecture, tmp_path):
    sae, optimizer = trained(architecture)
    prune(sae, optimizer, FEATURES)
    step(sae, optimizer, batch(), dead=mask(), pruned=mask())
    sae.save_inference_model(tmp_path)
    acts = SAE.load_from_disk(tmp_path).encode(10 * batch(9))
    assert (acts[:, FEATURES] == 0).all()
    assert (acts[:, OTHERS] > 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_step": -1}, "start_step is -1"),
        ({"share": 0.0}, "share is 0.0; it must be above 0 and below 1"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"every_n_steps": 0}, "pruning.every_n_steps is 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PruningOptions(**options)

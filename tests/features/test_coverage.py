"""Reserved features that begin with forget tokens of their own."""

import copy

import pytest
import torch
from made_saes import FEATURES, OTHERS, batch, each_architecture, forward, slices, trained

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.coverage import CoverageOptions, cover
from sae_lens_contrastive.features.surgery import feature_parameters

IS_FORGET = torch.arange(64) >= 40
UNCOVERED = torch.zeros(64, dtype=torch.bool).index_fill(0, torch.tensor([41, 50, 62, 63]), True)


def run(sae, optimizer, x, uncovered=UNCOVERED, seed=0, margin=2.0):
    return cover(sae, optimizer, FEATURES, x, IS_FORGET, uncovered, torch.Generator().manual_seed(seed), margin)


@each_architecture
def test_a_feature_begins_at_the_margin_on_its_token_and_below_zero_on_the_mean_of_other_domains(architecture):
    sae, optimizer = trained(architecture)
    x = batch(9)
    tokens = run(sae, optimizer, x)
    assert len(tokens) == 3
    assert set(tokens.tolist()) <= {41, 50, 62, 63}
    # process_sae_in is linear in a batch of given statistics: the mean goes through it as any token does.
    both = torch.cat([x, x[~IS_FORGET].mean(dim=0, keepdim=True)])
    hidden_pre = forward(sae, both).hidden_pre.detach()[:, FEATURES]
    assert hidden_pre[tokens].diag().tolist() == pytest.approx([2.0] * 3, abs=1e-4)
    assert hidden_pre[-1].tolist() == pytest.approx([-2.0] * 3, abs=1e-4)


@each_architecture
def test_other_features_are_untouched_and_new_ones_have_no_moments(architecture):
    sae, optimizer = trained(architecture)
    before = copy.deepcopy(sae.state_dict())
    run(sae, optimizer, batch(9))
    for name, (parameter, _) in feature_parameters(sae).items():
        assert torch.equal(slices(parameter, name, OTHERS), slices(before[name], name, OTHERS)), name
        assert not slices(optimizer.state[parameter]["exp_avg"], name).any(), name
    norms = sae.W_dec.norm(dim=1)
    assert norms[FEATURES].tolist() == pytest.approx([norms[OTHERS].mean().item()] * 3, rel=1e-5)


def test_features_beyond_the_uncovered_tokens_stay_as_they_are():
    sae, optimizer = trained("topk")
    before = sae.W_dec.clone()
    one = torch.zeros(64, dtype=torch.bool).index_fill(0, torch.tensor([50]), True)
    assert run(sae, optimizer, batch(9), one).tolist() == [50]
    assert torch.equal(sae.W_dec[FEATURES[1:]], before[FEATURES[1:]])
    assert run(sae, optimizer, batch(9), torch.zeros(64, dtype=torch.bool)).tolist() == []
    before, everywhere = sae.W_dec.clone(), torch.ones(64, dtype=torch.bool)
    started = cover(sae, optimizer, FEATURES, batch(9), everywhere, everywhere, torch.Generator(), 2.0)
    assert started.tolist() == []
    assert torch.equal(sae.W_dec, before)


def test_the_draw_is_by_seed():
    drawn = [run(*trained("topk"), batch(9), seed=seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"until": 0.0}, {"until": 1.5}, {"margin": 0.0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"coverage.{next(iter(wrong))}"):
        CoverageOptions(**wrong)

"""Reinitialisation: which tokens are drawn, and that their features come alive in every architecture."""

import copy

import pytest
import torch
from made_saes import FEATURES, OTHERS, SIZE, batch, each_architecture, forward, mask, slices, step, trained

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.surgery import (
    ReinitialisationOptions,
    draw_tokens,
    feature_parameters,
    prune,
    reinitialise,
)
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN


@each_architecture
@pytest.mark.parametrize("subtracts_b_dec", [True, False])
def test_a_reinitialised_feature_fires_on_its_token_and_makes_up_for_its_error(architecture, subtracts_b_dec):
    sae, optimizer = trained(architecture, apply_b_dec_to_input=subtracts_b_dec)
    prune(sae, optimizer, FEATURES)
    x = batch(9)
    # Tokens far off in directions that nothing reconstructs are worst; a feature has no rival there.
    x[:3] += 300 * torch.eye(SIZE)[:3]
    output = forward(sae, x)
    options = ReinitialisationOptions(explained_share=0.5)
    generator = torch.Generator().manual_seed(0)
    tokens = reinitialise(sae, optimizer, FEATURES, x, output.sae_out, None, generator, options)
    assert set(tokens.tolist()) == {0, 1, 2}

    error = (x - output.sae_out).detach()
    error = (error - error.median(dim=0).values)[tokens]
    row_norm = sae.W_dec[OTHERS].norm(dim=1).mean()
    torch.testing.assert_close(sae.W_dec[FEATURES], row_norm * error / error.norm(dim=1, keepdim=True))
    pre = (sae.process_sae_in(x) @ sae.W_enc + sae.b_enc)[:, FEATURES]
    own = pre[tokens, range(3)]
    torch.testing.assert_close(own[:, None] * sae.W_dec[FEATURES], 0.5 * error)
    # On another token it falls by explained_share / n for every unit of projection.
    project = 0.5 * (x @ (error / error.norm(dim=1, keepdim=True)).T) / row_norm
    torch.testing.assert_close(pre - own, project - project[tokens, range(3)], atol=1e-4, rtol=1e-4)

    fires = forward(sae, x).feature_acts[:, FEATURES] > 0
    assert fires[tokens, range(3)].all()
    assert fires.float().mean() < 0.7


def test_what_all_tokens_lack_is_no_direction():
    sae, optimizer = trained("standard")
    x = 0.1 * batch(9)
    sae_out = torch.zeros_like(x)
    sae_out[:, 5] -= 100.0
    reinitialise(sae, optimizer, FEATURES, x, sae_out, None, torch.Generator(), ReinitialisationOptions())
    assert (sae.W_dec[FEATURES, 5].abs() / sae.W_dec[FEATURES].norm(dim=1)).max() < 0.9


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_features_that_are_alike_do_not_overshoot_together(architecture):
    sae, optimizer = trained(architecture)
    features = torch.arange(SIZE)
    x = 0.1 * batch(9)
    x[::3, 4] += 5.0
    reinitialise(sae, optimizer, features, x, torch.zeros_like(x), None, torch.Generator(), ReinitialisationOptions())
    assert (sae.W_dec[:, 4] / sae.W_dec.norm(dim=1)).min() > 0.9
    far = 1000 * torch.eye(SIZE)[4:5]
    written = sae.encode(far) @ sae.W_dec
    assert 500 < written[0, 4] < 1001


@each_architecture
def test_reinitialisation_resets_moments_and_thresholds_and_leaves_the_others(architecture):
    sae, optimizer = trained(architecture)
    before = copy.deepcopy(sae.state_dict())
    output = forward(sae, batch(9))
    reinitialise(sae, optimizer, FEATURES, batch(9), output.sae_out, None, torch.Generator(), ReinitialisationOptions())
    for name, (parameter, _) in feature_parameters(sae).items():
        assert torch.equal(slices(parameter, name, OTHERS), slices(before[name], name, OTHERS)), name
        assert not torch.equal(slices(parameter, name), slices(before[name], name)), name
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not slices(optimizer.state[parameter][moment], name).any(), name
            assert slices(optimizer.state[parameter][moment], name, OTHERS).any(), name
    if architecture == "jumprelu":
        assert sae.threshold[FEATURES].tolist() == pytest.approx([0.02] * 3)


@each_architecture
def test_reinitialised_features_stay_alive_and_reconstruct_better(architecture):
    generator = torch.Generator().manual_seed(1)

    def planted():
        """Half of the tokens have a strong component along an axis of their own."""
        x = 0.1 * torch.randn(128, SIZE, generator=generator)
        x[torch.arange(64), torch.randint(0, 3, (64,), generator=generator)] += 6.0
        return x

    sae, optimizer = trained(architecture, steps=0)
    everything = torch.arange(SIZE)
    prune(sae, optimizer, everything)
    x = planted()
    output = forward(sae, x)
    before = output.losses["mse_loss"].item()
    reinitialise(sae, optimizer, FEATURES, x, output.sae_out, None, generator, ReinitialisationOptions())
    for _ in range(30):
        output = step(sae, optimizer, planted(), pruned=mask(OTHERS))
    assert (output.feature_acts[:, FEATURES] > 0).any(dim=0).all()
    assert output.losses["mse_loss"].item() < 0.7 * before


def test_tokens_are_drawn_by_squared_error_and_forget_weight():
    # Squared errors 4, 1, 1 and 0; the second counts five times.
    error = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    domains = torch.tensor([GENERAL, FORGET, RETAIN, FORGET])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_tokens(error, domains, 1, generator, forget_weight=5.0) for _ in range(4000)])
    assert (drawn.bincount(minlength=4) / 4000).tolist() == pytest.approx([0.4, 0.5, 0.1, 0.0], abs=0.03)
    drawn = torch.cat([draw_tokens(error, None, 1, generator, forget_weight=5.0) for _ in range(4000)])
    assert (drawn.bincount(minlength=4) / 4000).tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6, 0.0], abs=0.03)


def test_no_token_is_drawn_twice_and_none_without_an_error():
    error = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    assert sorted(draw_tokens(error, None, 9, generator, 1.0).tolist()) == [0, 1, 2]
    assert draw_tokens(torch.zeros(4, 2), None, 2, generator, 1.0).tolist() == []
    assert draw_tokens(error, None, 0, generator, 1.0).tolist() == []


def test_features_without_a_token_stay_as_they_are():
    sae, optimizer = trained("standard")
    before = copy.deepcopy(sae.state_dict())
    x = batch(9)
    sae_out = x.clone()
    sae_out[5] += 1.0
    tokens = reinitialise(sae, optimizer, FEATURES, x, sae_out, None, torch.Generator(), ReinitialisationOptions())
    assert tokens.tolist() == [5]
    assert not torch.equal(sae.W_dec[2], before["W_dec"][2])
    assert torch.equal(sae.W_dec[[3, 11]], before["W_dec"][[3, 11]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "reinitialisation.every_n_steps is 0"),
        ({"forget_weight": 0.0}, "forget_weight is 0.0; it must be above 0"),
        ({"max_share": 1.1}, "max_share is 1.1"),
        ({"explained_share": 0.0}, "explained_share is 0.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ReinitialisationOptions(**options)

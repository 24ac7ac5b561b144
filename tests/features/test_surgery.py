"""Surgery: who is masked, that masks hold in every architecture, that new directions come alive."""

import copy

import pytest
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.surgery import (
    FEATURE_AXES,
    PruningOptions,
    ReinitialisationOptions,
    draw_tokens,
    feature_parameters,
    features_to_prune,
    prune,
    reinitialise,
    zero_gradients,
)
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN

SIZE = 16  # d_in and d_sae alike, so that a wrong axis shows
FEATURES = torch.tensor([2, 3, 11])
OTHERS = torch.tensor([i for i in range(SIZE) if i not in FEATURES])

ARCHITECTURES = {
    "standard": lambda **kw: StandardTrainingSAE(StandardTrainingSAEConfig(l1_coefficient=0.1, **kw)),
    "topk": lambda **kw: TopKTrainingSAE(TopKTrainingSAEConfig(k=4, **kw)),
    "topk, not rescaled": lambda **kw: TopKTrainingSAE(
        TopKTrainingSAEConfig(k=4, rescale_acts_by_decoder_norm=False, **kw)
    ),
    "batchtopk": lambda **kw: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=4, **kw)),
    "jumprelu": lambda **kw: JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(jumprelu_init_threshold=0.02, l0_coefficient=0.01, **kw)
    ),
    "matryoshka": lambda **kw: MatryoshkaBatchTopKTrainingSAE(
        MatryoshkaBatchTopKTrainingSAEConfig(k=4, matryoshka_widths=[8, SIZE], **kw)
    ),
}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def trained(architecture, steps=5, **kwargs):
    """An SAE with unlike decoder norms and biases, after some steps of Adam."""
    torch.manual_seed(0)
    sae = ARCHITECTURES[architecture](d_in=SIZE, d_sae=SIZE, **kwargs)
    with torch.no_grad():
        sae.W_dec *= 1 + 2 * torch.rand(SIZE, 1)
        sae.b_enc += 0.05
        sae.b_dec += 0.3 * torch.randn(SIZE)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01)
    for seed in range(steps):
        step(sae, optimizer, batch(seed))
    return sae, optimizer


def batch(seed=0, n_tokens=64):
    return torch.randn(n_tokens, SIZE, generator=torch.Generator().manual_seed(seed))


def forward(sae, x, dead=None):
    coefficients = dict.fromkeys(sae.get_coefficients(), 0.1)
    return sae.training_forward_pass(TrainStepInput(x, coefficients, dead, n_training_steps=0, is_logging_step=False))


def step(sae, optimizer, x, dead=None, pruned=None):
    output = forward(sae, x, dead)
    output.loss.backward()
    if pruned is not None:
        zero_gradients(sae, pruned)
    optimizer.step()
    optimizer.zero_grad()
    return output


def slices(parameter, name, features=FEATURES):
    return parameter.index_select(FEATURE_AXES[name], features)


def mask(features=FEATURES):
    return torch.zeros(SIZE, dtype=torch.bool).index_fill(0, features, True)


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


@each_architecture
@pytest.mark.parametrize("subtracts_b_dec", [True, False])
def test_a_reinitialised_feature_fires_on_its_token_and_makes_up_for_its_error(architecture, subtracts_b_dec):
    sae, optimizer = trained(architecture, apply_b_dec_to_input=subtracts_b_dec)
    prune(sae, optimizer, FEATURES)
    x = batch(9)
    # Tokens far off in directions that nothing reconstructs are worst; a feature has no rival there.
    x[:3] += 300 * torch.eye(SIZE)[:3]
    output = forward(sae, x)
    options = ReinitialisationOptions(explained_share=0.5, selectivity=2.0)
    generator = torch.Generator().manual_seed(0)
    tokens = reinitialise(sae, optimizer, FEATURES, x, output.sae_out, None, generator, options)
    assert set(tokens.tolist()) == {0, 1, 2}

    error = (x - output.sae_out).detach()[tokens]
    row_norm = sae.W_dec[OTHERS].norm(dim=1).mean()
    torch.testing.assert_close(sae.W_dec[FEATURES], row_norm * error / error.norm(dim=1, keepdim=True))
    pre = (sae.process_sae_in(x) @ sae.W_enc + sae.b_enc)[:, FEATURES]
    own = pre[tokens, range(3)]
    torch.testing.assert_close(own[:, None] * sae.W_dec[FEATURES], 0.5 * error)
    # On another token it falls by explained_share * selectivity / n = 1/n for every unit of projection.
    project = (x @ (error / error.norm(dim=1, keepdim=True)).T) / row_norm
    torch.testing.assert_close(pre - own, project - project[tokens, range(3)], atol=1e-4, rtol=1e-4)

    fires = forward(sae, x).feature_acts[:, FEATURES] > 0
    assert fires[tokens, range(3)].all()
    assert fires.float().mean() < 0.1


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


def test_a_normalisation_of_each_token_is_refused():
    sae, optimizer = trained("standard", steps=0, normalize_activations="layer_norm")
    with pytest.raises(ConfigError, match=r"'layer_norm'\. Use none, expected_average_only_in"):
        reinitialise(sae, optimizer, FEATURES, batch(), batch(1), None, torch.Generator(), ReinitialisationOptions())


@pytest.mark.parametrize(
    ("options_class", "options", "message"),
    [
        (PruningOptions, {"share": 0.0}, "share is 0.0; it must be above 0 and below 1"),
        (PruningOptions, {"threshold": 1.5}, "threshold is 1.5"),
        (PruningOptions, {"every_n_steps": 0}, "pruning.every_n_steps is 0"),
        (ReinitialisationOptions, {"every_n_steps": 0}, "reinitialisation.every_n_steps is 0"),
        (ReinitialisationOptions, {"forget_weight": 0.0}, "forget_weight is 0.0; it must be above 0"),
        (ReinitialisationOptions, {"max_share": 1.1}, "max_share is 1.1"),
        (ReinitialisationOptions, {"explained_share": 0.0}, "explained_share is 0.0"),
    ],
)
def test_wrong_options_are_refused(options_class, options, message):
    with pytest.raises(ConfigError, match=message):
        options_class(**options)

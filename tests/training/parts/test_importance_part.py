"""Importance during training: what it is made of, when it is measured, what it finds."""

import json

import pytest
import torch
from made_training import Loop
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import ImportanceOptions
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN
from sae_lens_contrastive.training.parts.importance import ImportancePart

D_IN, D_SAE = 6, 8
LOUD, CAUSAL = 5, 2
DOMAINS = torch.tensor([GENERAL] * 16 + [FORGET] * 8 + [RETAIN] * 8)
WITH_INFORMATION = {"activation_weight": 0.0, "gradient_weight": 0.0, "mutual_information_weight": 1.0}


def make_sae(seed=0):
    torch.manual_seed(seed)
    return StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, l1_coefficient=0.0))


def planted_sae():
    """Feature LOUD fires most and changes nothing; feature CAUSAL fires less and writes what reconstruction needs."""
    sae = make_sae()
    with torch.no_grad():
        sae.W_enc *= 0.1
        sae.W_enc[:, LOUD], sae.W_enc[:, CAUSAL] = 0.0, 0.0
        sae.W_enc[0, LOUD], sae.W_enc[1, CAUSAL] = 5.0, 0.5
        sae.W_dec[LOUD] = 1e-3
        sae.W_dec[CAUSAL] = torch.eye(D_IN)[1]
    return sae


def batch(seed=0):
    return torch.rand(len(DOMAINS), D_IN, generator=torch.Generator().manual_seed(seed)) + 0.5


def run(part, sae, n_steps, domains=DOMAINS, lr=0.0):
    loop = Loop(sae, [part], domains, lr=lr)
    for seed in range(n_steps):
        loop.step(batch(seed))
    return loop


def test_a_planted_causal_feature_comes_first_where_activation_alone_would_not_find_it():
    mixed = run(ImportancePart(ImportanceOptions(every_n_steps=1), D_SAE), planted_sae(), 1)
    by_activation = ImportanceOptions(activation_weight=1.0, gradient_weight=0.0, every_n_steps=1)
    loud = run(ImportancePart(by_activation, D_SAE), planted_sae(), 1)
    assert mixed.features.importance.argmax() == CAUSAL
    assert loud.features.importance.argmax() == LOUD
    assert loud.features.importance[LOUD] == 1.0


def test_the_gradient_is_the_losses_own_and_taken_before_the_step():
    options = ImportanceOptions(activation_weight=0.0, gradient_weight=1.0, every_n_steps=1)
    sae = make_sae()
    x = batch()
    acts = sae.encode(x).detach()
    sae_out, W_dec = sae(x).detach(), sae.W_dec.detach().clone()
    attribution = (2 * (sae_out - x) @ W_dec.T / len(x) * acts).abs().mean(dim=0)
    loop = run(ImportancePart(options, D_SAE), sae, 1, lr=0.1)
    torch.testing.assert_close(loop.features.importance, attribution / attribution.max())


def test_gradients_are_asked_for_on_the_steps_that_measure_only():
    part = ImportancePart(ImportanceOptions(every_n_steps=3), D_SAE)
    assert [part.wants_gradients(step) for step in range(7)] == [False, False, True, False, False, True, False]
    without = ImportanceOptions(activation_weight=1.0, gradient_weight=0.0, every_n_steps=3)
    assert not ImportancePart(without, D_SAE).wants_gradients(2)


def test_importance_is_measured_on_schedule_and_remembers():
    part = ImportancePart(ImportanceOptions(every_n_steps=3, memory=0.5), D_SAE)
    sae = planted_sae()
    loop = Loop(sae, [part], lr=0.0)
    seen = []
    for seed in range(6):
        loop.step(batch(seed))
        seen.append(loop.features.importance)
    assert seen[:2] == [None, None]
    assert seen[2] is seen[3] is seen[4]
    fresh = run(ImportancePart(ImportanceOptions(every_n_steps=6), D_SAE), sae, 6).features.importance
    torch.testing.assert_close(seen[5], 0.5 * seen[2] + 0.5 * fresh)


def test_importance_that_another_part_changed_is_what_it_goes_on_from():
    part = ImportancePart(ImportanceOptions(every_n_steps=1, memory=0.5), D_SAE)
    loop = run(part, planted_sae(), 1)
    measured = loop.features.importance
    loop.features.importance = measured.index_fill(0, torch.tensor([0]), 0.8)
    loop.step(batch(0))
    assert loop.features.importance[0] == pytest.approx(0.4 + 0.5 * float(measured[0]))


def test_mutual_information_finds_a_planted_domain_feature():
    sae = planted_sae()
    with torch.no_grad():
        sae.W_enc[:, 4] = 0.0
        sae.W_enc[3, 4], sae.b_enc[4] = 1.0, -3.0
    part = ImportancePart(ImportanceOptions(every_n_steps=10, **WITH_INFORMATION), D_SAE)
    loop = Loop(sae, [part], DOMAINS, lr=0.0)
    for seed in range(10):
        x = batch(seed)
        x[DOMAINS == FORGET, 3] += 3.0
        loop.step(x)
    assert loop.features.importance.argmax() == 4
    assert loop.features.importance[4] == 1.0


def test_mutual_information_is_counted_on_every_fifth_step_since_the_last_measurement():
    part = ImportancePart(ImportanceOptions(every_n_steps=12, **WITH_INFORMATION), D_SAE)
    loop = Loop(planted_sae(), [part], DOMAINS, lr=0.0)
    counted = []
    for seed in range(15):
        loop.step(batch(seed))
        counted.append(part.state_dict()["tokens"].tolist())
    # Four steps in five add nothing; step 12 counts, measures and empties.
    assert counted[3:6] == [[0, 0], [24, 8], [24, 8]]
    assert counted[10:15] == [[48, 16], [0, 0], [0, 0], [0, 0], [24, 8]]


def test_mutual_information_needs_domains():
    part = ImportancePart(ImportanceOptions(every_n_steps=10, **WITH_INFORMATION), D_SAE)
    with pytest.raises(ConfigError, match="no forget and retain corpus is given"):
        run(part, planted_sae(), 5, domains=None)


def test_records_say_what_a_figure_shows():
    part = ImportancePart(ImportanceOptions(every_n_steps=2), D_SAE, threshold=0.5)
    importance = run(part, planted_sae(), 5).features.importance
    assert [record["step"] for record in part.records] == [1, 3]
    last = part.records[-1]
    assert last["top_features"][0] == CAUSAL
    assert last["top_importance"] == sorted(importance.tolist(), reverse=True)
    assert last["n_below_threshold"] == int((importance < 0.5).sum()) > 0
    assert list(last["quantiles"]) == ["p10", "p25", "p50", "p75", "p90", "p99"]
    assert last["quantiles"]["p50"] == pytest.approx(float(importance.quantile(0.5)))
    assert json.loads(json.dumps(part.records)) == part.records


def test_metrics_are_there_once_importance_is():
    part = ImportancePart(ImportanceOptions(every_n_steps=2), D_SAE)
    assert part.metrics(run(part, planted_sae(), 1).features) == {}
    features = run(part, planted_sae(), 2).features
    assert part.metrics(features) == {"mean_importance": pytest.approx(float(features.importance.mean()))}

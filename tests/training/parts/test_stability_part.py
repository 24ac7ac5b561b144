"""Stability during training: what is compared, and when."""

import pytest
import torch
from made_training import Loop
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig

from sae_lens_contrastive.feature_stats import StabilityOptions
from sae_lens_contrastive.features.grouping import FeatureGroups
from sae_lens_contrastive.training.parts.stability import StabilityPart

D_IN, D_SAE = 6, 8


def made_loop(every_n_steps=3, lr=0.0):
    torch.manual_seed(0)
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE))
    return Loop(sae, [StabilityPart(StabilityOptions(every_n_steps=every_n_steps))], lr=lr)


def advance(loop, n_steps):
    for _ in range(n_steps):
        loop.step(torch.randn(16, D_IN, generator=torch.Generator().manual_seed(loop.n_steps)))


def test_decoder_rows_are_compared_with_those_of_n_steps_ago():
    loop = made_loop()
    advance(loop, 3)
    with torch.no_grad():
        loop.sae.W_dec[0] *= -1
        loop.sae.W_dec[1:] *= 3
    advance(loop, 3)
    advance(loop, 3)
    first, second = loop.parts[0].records
    assert (first["step"], second["step"]) == (5, 8)
    assert first["decoder_cosine_mean"] == pytest.approx(0.75, abs=1e-6)
    assert second["decoder_cosine_mean"] == pytest.approx(1.0, abs=1e-6)
    assert first["adjusted_rand_index"] is None
    assert first["importance_spearman"] is None


def test_groups_and_importances_are_compared_where_there_are_some():
    loop = made_loop()
    loop.features.importance = torch.arange(D_SAE) / D_SAE
    loop.features.groups = FeatureGroups((torch.tensor([0, 1, 2]), torch.tensor([3, 4])), 0.5)
    advance(loop, 3)
    loop.features.importance = loop.features.importance.flip(0)
    advance(loop, 3)
    record = loop.parts[0].records[-1]
    assert record["adjusted_rand_index"] == 1.0
    assert record["importance_spearman"] == pytest.approx(-1.0)


def test_training_moves_the_rows():
    loop = made_loop(lr=0.05)
    advance(loop, 6)
    assert loop.parts[0].records[0]["decoder_cosine_p5"] < 0.999


def test_a_resumed_run_records_the_same():
    whole = made_loop(lr=0.05)
    advance(whole, 9)
    first, second = made_loop(lr=0.05), made_loop(lr=0.05)
    advance(first, 5)
    second.load(first.state())
    advance(second, 4)
    assert first.parts[0].records + second.parts[0].records == whole.parts[0].records

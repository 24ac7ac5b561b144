"""Pruning and reinitialisation during training, with the importance they go by."""

import pytest
import torch
from made_training import Loop
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig

from sae_lens_contrastive.feature_stats import ImportanceOptions, StabilityOptions
from sae_lens_contrastive.features.surgery import PruningOptions, ReinitialisationOptions
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN
from sae_lens_contrastive.training.parts.importance import ImportancePart
from sae_lens_contrastive.training.parts.pruning import PruningPart
from sae_lens_contrastive.training.parts.reinitialisation import ReinitialisationPart
from sae_lens_contrastive.training.parts.stability import StabilityPart

D_IN, D_SAE, BATCH, N_STEPS = 12, 10, 64, 1000
NOISE = [1, 4, 7, 8]
REAL = [i for i in range(D_SAE) if i not in NOISE]
DOMAINS = torch.tensor([GENERAL] * 32 + [FORGET] * 16 + [RETAIN] * 16)


class Stream:
    """Tokens are sparse sums of six axes; the other six hold noise."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def __next__(self):
        x = 0.02 * torch.randn(BATCH, D_IN, generator=self.generator)
        active = torch.rand(BATCH, 6, generator=self.generator) < 0.3
        x[:, :6] += active * (1 + torch.rand(BATCH, 6, generator=self.generator))
        return x


def planted_sae():
    """Six features are the axes of the data; the others look at noise alone."""
    torch.manual_seed(0)
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, l1_coefficient=0.01))
    directions = torch.zeros(D_SAE, D_IN)
    directions[REAL, torch.arange(6)] = 1.0
    directions[NOISE, 6:10] = 0.0
    directions[NOISE, torch.arange(6, 10)] = 1.0
    with torch.no_grad():
        sae.W_dec.copy_(directions)
        sae.W_enc.copy_(directions.T)
    return sae


def pruning_loop(lr=1e-3, extra=(), **options):
    importance = ImportancePart(ImportanceOptions(every_n_steps=5), D_SAE)
    pruning = PruningPart(PruningOptions(every_n_steps=5, **{"threshold": 0.1, "start_step": 0, **options}))
    return Loop(planted_sae(), [importance, pruning, *extra], DOMAINS, lr=lr)


def advance(loop, stream, n_steps):
    return [loop.step(next(stream)) for _ in range(n_steps)][-1]


def pruned(loop):
    return loop.features.pruned.nonzero().squeeze(1).tolist()


def test_pruning_removes_planted_noise_features_and_no_others():
    loop = pruning_loop(share=0.8)
    output = advance(loop, Stream(), 40)
    assert pruned(loop) == NOISE
    assert not loop.sae.W_enc[:, NOISE].any()
    assert (output.feature_acts[:, NOISE] == 0).all()
    assert output.losses["mse_loss"] < 0.05
    assert loop.parts[1].metrics(loop.features) == {"n_pruned": 4.0}
    assert loop.parts[1].records[0]["step"] == 4
    assert sum(record["n_newly_pruned"] for record in loop.parts[1].records) == 4
    assert loop.parts[1].records[-1] == {"step": 39, "n_pruned": 4, "n_newly_pruned": 0}


def test_no_more_than_the_share_is_pruned():
    loop = pruning_loop(share=0.2)
    advance(loop, Stream(), 40)
    assert len(pruned(loop)) == 2
    assert set(pruned(loop)) < set(NOISE)


def test_nothing_is_pruned_before_the_start_or_without_importance():
    loop = pruning_loop(share=0.8, start_step=20)
    advance(loop, Stream(), 19)
    assert pruned(loop) == []
    advance(loop, Stream(), 1)
    assert pruned(loop) == NOISE
    alone = Loop(planted_sae(), [PruningPart(PruningOptions(every_n_steps=5, start_step=0))])
    advance(alone, Stream(), 10)
    assert alone.parts[0].records == []


def dead_sae(seed=0):
    """A TopK SAE of which half has been switched off."""
    torch.manual_seed(seed)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=3))
    with torch.no_grad():
        sae.b_enc[::2] = -100.0
    return sae


def reviving_loop(every_n_steps=10, seed=0, **options):
    part = ReinitialisationPart(
        ReinitialisationOptions(every_n_steps=every_n_steps, **{"max_share": 1.0, **options}), N_STEPS
    )
    return Loop(dead_sae(), [part], DOMAINS, lr=1e-3, dead_window=5, seed=seed)


def test_dead_features_come_alive_and_stay():
    loop = reviving_loop()
    dead = list(range(0, D_SAE, 2))
    stream = Stream()
    assert not (advance(loop, stream, 10).feature_acts[:, dead] > 0).any()
    assert (loop.passes_since_fired[dead] == 0).all()
    fired = torch.stack([(advance(loop, stream, 1).feature_acts > 0).any(dim=0) for _ in range(10)])
    assert fired.any(dim=0).all()
    first, second = loop.parts[0].records
    assert first == {"step": 9, "n_reinitialised": 5, "n_alive_again": 0}
    assert second == {"step": 19, "n_reinitialised": 0, "n_alive_again": 5}
    assert loop.parts[0].metrics(loop.features) == {"n_reinitialised": 5.0}


def test_a_feature_that_stays_silent_is_not_counted_as_alive():
    loop = reviving_loop()
    stream = Stream()
    advance(loop, stream, 10)
    with torch.no_grad():
        loop.sae.b_enc[[2, 6]] = -100.0
    advance(loop, stream, 10)
    assert loop.parts[0].records[1]["n_alive_again"] == 3


def test_reserved_features_are_neither_masked_nor_given_another_direction():
    pruning = pruning_loop(share=0.8)
    pruning.features.reserved[:5] = True
    advance(pruning, Stream(), 40)
    assert pruned(pruning) == [i for i in NOISE if i >= 5]
    revival = reviving_loop()
    revival.features.reserved[:5] = True
    advance(revival, Stream(), 10)
    assert revival.parts[0].records == [{"step": 9, "n_reinitialised": 2, "n_alive_again": 0}]
    assert (revival.sae.b_enc[[0, 2, 4]] < -50).all()
    assert (revival.sae.b_enc[[6, 8]] > -50).all()


def test_none_starts_anew_towards_the_end():
    loop = reviving_loop(until=0.015)
    advance(loop, Stream(), 40)
    assert [record["step"] for record in loop.parts[0].records] == [9]


def test_those_silent_longest_go_first():
    loop = reviving_loop(max_share=0.3)
    loop.passes_since_fired[[6, 2, 8]] = torch.tensor([5.0, 3.0, 1.0])
    before = loop.sae.W_dec.detach().clone()
    loop.optimizer.param_groups[0]["lr"] = 0.0
    advance(loop, Stream(), 10)
    changed = (loop.sae.W_dec != before).any(dim=1).nonzero().squeeze(1)
    assert changed.tolist() == [2, 6, 8]


def test_pruned_features_come_back():
    revive = ReinitialisationPart(ReinitialisationOptions(every_n_steps=12, max_share=1.0), N_STEPS)
    loop = pruning_loop(share=0.8, extra=[revive])
    stream = Stream()
    advance(loop, stream, 11)
    assert pruned(loop) == NOISE
    advance(loop, stream, 1)
    assert pruned(loop) == []
    assert (loop.sae.encode(next(stream))[:, NOISE] > 0).any(dim=0).all()


def test_a_feature_that_starts_anew_has_the_mean_importance_and_so_a_grace_period():
    revive = ReinitialisationPart(ReinitialisationOptions(every_n_steps=6, max_share=1.0), N_STEPS)
    loop = pruning_loop(share=0.8, extra=[revive], threshold=0.1)
    stream = Stream()
    advance(loop, stream, 5)
    assert pruned(loop) == NOISE
    measured = loop.features.importance
    advance(loop, stream, 1)
    mean = float(measured[REAL].mean())
    assert loop.features.importance[NOISE].tolist() == pytest.approx([mean] * 4)
    assert torch.equal(loop.features.importance[REAL], measured[REAL])

    # Silenced at once, they still keep their place until 0.9^n of the mean is below the threshold.
    n_kept = next(n for n in range(1, 99) if mean * 0.9**n < 0.1) - 1
    assert n_kept > 2
    loop.parts.pop()
    with torch.no_grad():
        loop.sae.W_enc[:, NOISE] = 0.0
        loop.sae.b_enc[NOISE] = -1.0
    advance(loop, stream, 4 + 5 * (n_kept - 1))
    assert pruned(loop) == []
    advance(loop, stream, 5)
    assert pruned(loop) == NOISE


def test_draws_depend_on_the_seed_and_the_step_alone():
    rows = []
    for seed in (0, 0, 1):
        loop = reviving_loop(seed=seed)
        torch.manual_seed(len(rows))
        advance(loop, Stream(), 10)
        rows.append(loop.sae.W_dec.detach().clone())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def everything():
    options = ImportanceOptions(
        activation_weight=0.35, gradient_weight=0.5, mutual_information_weight=0.15, every_n_steps=7
    )
    parts = [
        ImportancePart(options, D_SAE),
        PruningPart(PruningOptions(share=0.4, threshold=0.2, every_n_steps=7, start_step=0)),
        ReinitialisationPart(ReinitialisationOptions(every_n_steps=9), N_STEPS),
        StabilityPart(StabilityOptions(every_n_steps=8)),
    ]
    return Loop(dead_sae(), parts, DOMAINS, lr=1e-2, dead_window=5)


@pytest.mark.parametrize("interrupted_at", [8, 13, 20])
def test_a_resumed_run_is_bit_equal(interrupted_at):
    whole, first, second = everything(), everything(), everything()
    stream = Stream()
    advance(whole, Stream(), 32)
    advance(first, stream, interrupted_at)
    second.load(first.state())
    advance(second, stream, 32 - interrupted_at)
    for name, tensor in whole.sae.state_dict().items():
        assert torch.equal(second.sae.state_dict()[name], tensor), name
    assert torch.equal(second.features.importance, whole.features.importance)
    assert torch.equal(second.features.pruned, whole.features.pruned)
    for i, part in enumerate(whole.parts):
        assert first.parts[i].records + second.parts[i].records == part.records
        assert part.records
        assert second.parts[i].metrics(second.features) == part.metrics(whole.features)
    assert sum(record["n_newly_pruned"] for record in whole.parts[1].records) > 0
    assert sum(record["n_reinitialised"] for record in whole.parts[2].records) > 0

"""Reserved features whose encoder learns in white coordinates, beside the host's optimiser."""

import pytest
import torch
from made_training import Loop, clone
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
)

from sae_lens_contrastive.features.whitening import Gradients, WhiteningOptions
from sae_lens_contrastive.losses import OutputSpace, Sequences, Sides
from sae_lens_contrastive.losses.soft_firing import firing_level
from sae_lens_contrastive.training.parts.whitening import WhiteningPart

D_IN, D_SAE, N_RESERVED, N_STEPS = 6, 8, 2, 40


def text(seed):
    """Dimension 0 is a hundred times as large as the others; padding at the end, of which nothing may be read."""
    residual = torch.randn(20, 9, D_IN, generator=torch.Generator().manual_seed(seed))
    residual[..., 0] *= 100
    residual[:, 6:] = 1e6
    editable = torch.ones(20, 9, dtype=torch.bool)
    editable[:, 0], editable[:, 6:] = False, False
    return Sequences(torch.zeros(20, 9, dtype=torch.long), residual, editable)


SPACE = OutputSpace(lambda *_: None, text(0), text(1), 0.5, Sides(text(2), text(3)))


def loop(seed=0, **options):
    torch.manual_seed(0)
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=True))
    part = WhiteningPart(WhiteningOptions(**options), N_STEPS)
    made = Loop(sae, [part], output_space=SPACE, seed=seed)
    made.features.reserved[:N_RESERVED] = True
    part.watch(sae, N_RESERVED)
    return made


def batch(seed):
    x = torch.randn(32, D_IN, generator=torch.Generator().manual_seed(100 + seed))
    x[:, 0] *= 50
    return x


def test_reserved_features_begin_anew_and_are_of_one_size_on_white_text():
    made = loop()
    before = made.sae.W_enc.detach().clone()
    made.step(batch(0))
    tokens = 0.5 * torch.cat([side.residual[side.editable] for side in (SPACE.retain, SPACE.sentences.retain)])
    hidden_pre = (tokens - made.sae.b_dec) @ made.sae.W_enc + made.sae.b_enc
    reserved = hidden_pre[:, :N_RESERVED].detach()
    # A ReLU SAE fires at 0; 0.02 in each of six white directions, and all of it a tenth.
    assert torch.allclose(reserved.mean(dim=0), torch.full((2,), -0.05), atol=0.02)
    assert (reserved.std(dim=0) < 0.01).all()
    assert made.sae.W_enc[0, :N_RESERVED].abs().max() < 0.0002
    # The others took a step of the host's optimiser, no more.
    assert (made.sae.W_enc - before)[:, N_RESERVED:].abs().max() <= 0.0101


def test_the_hosts_optimiser_leaves_the_reserved_encoder_alone():
    made = loop(lr=1e-9, weight_decay=0.0)
    made.step(batch(0))
    first = made.sae.W_enc.detach().clone()
    for seed in range(1, 4):
        made.step(batch(seed))
    assert torch.allclose(made.sae.W_enc[:, :N_RESERVED], first[:, :N_RESERVED], atol=1e-6)
    assert (made.sae.W_enc - first)[:, N_RESERVED:].abs().max() > 0.01


def test_decoder_rows_of_reserved_features_keep_norm_one():
    made = loop()
    for seed in range(4):
        made.step(batch(seed))
        norms = made.sae.W_dec.norm(dim=1)
        assert torch.allclose(norms[:N_RESERVED], torch.ones(N_RESERVED), atol=1e-6)
    assert (norms[N_RESERVED:] - 1).abs().max() > 0.01


def test_the_decoder_bias_moves_no_boundary():
    made = loop(lr=1e-9, weight_decay=0.0)
    made.step(batch(0))

    def reserved():
        x = batch(9)
        hidden_pre = ((x - made.sae.b_dec) @ made.sae.W_enc + made.sae.b_enc)[:, :N_RESERVED].detach()
        return hidden_pre - made.parts[0].learned.level

    before, b_dec = reserved(), made.sae.b_dec.detach().clone()
    for seed in range(1, 6):
        made.step(batch(seed))
    assert (made.sae.b_dec - b_dec).abs().max() > 0.01
    assert torch.allclose(reserved(), before, atol=1e-4)


def test_it_learns_from_the_gradient_of_the_encoder():
    made = loop(lr=0.05, weight_decay=0.0)
    made.step(batch(0))
    features = made.parts[0].learned
    before = features.weight.detach().clone()
    # Pre-activations of feature 0 are to fall with the first white direction; feature 1 gets no gradient.
    made.sae.zero_grad()
    white = (batch(1) - features.whitening.mean) @ features.whitening.map[:, 0]
    (made.sae.W_enc[:, 0] @ features.whitening.map[:, 0]).backward()
    assert made.sae.W_enc.grad[:, :N_RESERVED].abs().max() == 0
    assert len(white) == 32
    taken = made.parts[0].gradients
    features.step(Gradients(taken["W_enc"], torch.zeros(N_RESERVED), torch.zeros(N_RESERVED, D_IN)), 1.0, 1.0)
    moved = features.weight - before
    assert moved[0, 0] < -0.04
    assert torch.all(moved[:, 1] == 0)


def test_the_gradient_is_that_of_the_white_weights_whatever_the_decoder_bias():
    made = loop()
    output = made.step(batch(0))
    made.sae.b_dec.data += torch.tensor([50.0, -3.0, 0.0, 7.0, 1.0, 0.0])
    part, x = made.parts[0], batch(1)
    features = part.learned
    part.after_step(made.view(0, output))  # the biases follow the decoder bias
    made.sae.zero_grad()
    target = torch.linspace(-1, 1, 64).reshape(32, 2)
    hidden_pre = ((x - made.sae.b_dec) @ made.sae.W_enc + made.sae.b_enc)[:, :N_RESERVED]
    (hidden_pre - target).square().mean().backward()
    columns = 0.1 * features.whitening.map @ features.weight
    level = features.level.clone()
    direct = (x - features.whitening.mean) @ columns + level + 0.1 * features.bias
    expected = torch.autograd.grad((direct - target).square().mean(), [features.weight, features.bias])
    with torch.no_grad():
        made.sae.b_dec += 1.0  # as the host's step would
    part.after_step(made.view(1, output))
    torch.testing.assert_close(features.weight.grad, expected[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(features.bias.grad, expected[1], rtol=1e-3, atol=1e-5)


def batch_topk(threshold):
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=2))
    sae.topk_threshold.fill_(threshold)
    return sae


def test_the_level_is_the_threshold_that_a_batchtopk_sae_is_saved_with():
    sae = batch_topk(1.5)
    part = WhiteningPart(WhiteningOptions(), N_STEPS)
    made = Loop(sae, [part], output_space=SPACE)
    made.features.reserved[:N_RESERVED] = True
    part.watch(sae, N_RESERVED)
    for seed in range(3):
        made.step(batch(seed))
        assert part.learned.level.tolist() == pytest.approx([float(sae.topk_threshold)] * N_RESERVED)


def test_without_thresholds_the_level_follows_the_median_token_slowly():
    made = loop()
    made.step(batch(0))
    before = made.parts[0].learned.level.clone()
    output = made.step(batch(1))
    now = firing_level(output.feature_acts, output.hidden_pre).median()
    torch.testing.assert_close(made.parts[0].learned.level, before + 0.05 * (now - before))


def test_decoder_rows_turn_with_an_optimiser_of_their_own():
    made = loop(decoder_lr=0.2)
    made.step(batch(0))
    before = made.sae.W_dec.detach().clone()
    made.sae.zero_grad()
    made.sae.W_dec[0, 1].backward()
    assert made.sae.W_dec.grad.abs().max() == 0
    made.parts[0].gradients |= {"W_enc": torch.zeros(D_IN, N_RESERVED), "b_enc": torch.zeros(N_RESERVED)}
    made.parts[0].learned.step(Gradients(*(made.parts[0].gradients[n] for n in ("W_enc", "b_enc", "W_dec"))), 1.0, 1.0)
    rows = made.parts[0].learned.rows
    assert rows[0, 1] < before[0, 1] - 0.05
    assert torch.equal(rows[1], before[1])


def test_the_learning_rate_falls_to_zero_over_the_second_half():
    made = loop(lr=0.05)
    rates = []
    for seed in range(N_STEPS):
        made.step(batch(seed))
        rates.append(made.parts[0].learned.optimizer.param_groups[0]["lr"])
    assert rates[1 : N_STEPS // 2 + 1] == [0.05] * (N_STEPS // 2)
    assert rates[N_STEPS // 2 + 1] < 0.05
    assert rates[-1] == pytest.approx(0.05 * 2 / N_STEPS)


def test_resumed_it_goes_on_bit_for_bit():
    whole, cut = loop(), loop()
    for seed in range(6):
        whole.step(batch(seed))
    for seed in range(3):
        cut.step(batch(seed))
    resumed = loop()
    resumed.load({**cut.state(), "sae": clone(cut.sae.state_dict())})
    for seed in range(3, 6):
        resumed.step(batch(seed))
    for name, tensor in whole.sae.state_dict().items():
        assert torch.equal(tensor, resumed.sae.state_dict()[name]), name


def test_the_start_depends_on_the_seed():
    one, two = loop(seed=0), loop(seed=1)
    one.step(batch(0)), two.step(batch(0))
    assert not torch.equal(one.sae.W_enc[:, :N_RESERVED], two.sae.W_enc[:, :N_RESERVED])

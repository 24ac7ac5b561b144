"""KL unlearning through the model above the hook: a linear read-out by hand, and the tiny model."""

import math
from dataclasses import replace

import pytest
import torch
from made_context import make_context
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.interventions import Clamp, edit_residual
from sae_lens_contrastive.losses import OutputKL, OutputSpace, Sequences, Sides
from sae_lens_contrastive.models import ModelAboveHook, residual_at_hook

HOOK = "blocks.19.hook_resid_post"


class ReadOut:
    """A model of nothing but an unembedding of three words, which remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, tokens, residual, positions):
        self.asked.append((tokens, residual, positions))
        return residual[positions] * torch.tensor([1.0, 2.0, 3.0])


def sequences(residual, editable=None):
    residual = torch.as_tensor(residual, dtype=torch.float32)
    editable = torch.ones(residual.shape[:2], dtype=torch.bool) if editable is None else torch.tensor(editable)
    return Sequences(torch.arange(residual[..., 0].numel()).reshape(editable.shape) % 3, residual, editable)


def identity_sae(bias=0.0):
    """Feature i is the positive part of dimension i."""
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=3, d_sae=3))
    sae.W_enc.data, sae.W_dec.data = torch.eye(3), torch.eye(3)
    sae.b_enc.data.fill_(bias)
    return sae


def term_context(sae, space, step=0):
    return make_context(torch.zeros(2, sae.cfg.d_sae), step=step, sae=sae, output_space=space)


def every_step(**options):
    return OutputKL(**{"every_n_steps": 1, "n_features": 1, "multiplier": 1.0, **options})


# One sequence of two tokens a side; the logits at position 0 are the residual times (1, 2, 3).
FORGET = [[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
RETAIN = [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]


def test_the_value_by_hand():
    space = OutputSpace(ReadOut(), sequences(FORGET), sequences(RETAIN))
    # Feature 0 fires on forget text alone and is set from 1 to -2: logits (-2, 0, 0) instead of (1, 0, 0).
    log_total = math.log(math.exp(-2) + 2)
    uniform = -math.log(3) + log_total + 2 / 3
    assert every_step(multiplier=2.0)(term_context(identity_sae(), space)).item() == pytest.approx(uniform, abs=1e-5)
    # The token after is number 1: p_edited = exp(0) / total, p_model = 1 / (e + 2).
    ratio = math.exp(-log_total) * (math.e + 2)
    npo = every_step(multiplier=2.0, objective="npo", objective_options={"beta": 1.0}, forget_weight=3.0)
    expected = 3 * 2 * math.log(1 + ratio)
    assert npo(term_context(identity_sae(), space)).item() == pytest.approx(expected, abs=1e-5)
    # p_ref is what the model says on the one position of retain text, softmax of (0, 2, 0).
    reference = torch.tensor([0.0, 2.0, 0.0]).softmax(dim=0)
    edited = torch.tensor([-2.0, 0.0, 0.0]).softmax(dim=0)
    expected = (reference * (reference / edited).log()).sum().item()
    value = every_step(multiplier=2.0, objective="reference")(term_context(identity_sae(), space))
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_harm_on_retain_text_by_hand():
    space = OutputSpace(ReadOut(), sequences(FORGET), sequences(RETAIN))
    # Features 0 and 1 are clamped to -1, and feature 1 fires on retain text: logits (0, -2, 0) instead of (0, 2, 0).
    model, edited = (torch.tensor([0.0, logit, 0.0]).softmax(dim=0) for logit in (2.0, -2.0))
    harm = (model * (model / edited).log()).sum().item()
    term = every_step(n_features=2, forget_weight=0.0, retain_weight=2.0)
    assert term(term_context(identity_sae(), space)).item() == pytest.approx(2 * harm, abs=1e-5)


def test_off_schedule_it_is_zero_and_does_not_run_the_model():
    model = ReadOut()
    space = OutputSpace(model, sequences(FORGET), sequences(RETAIN))
    term = OutputKL(every_n_steps=4, n_features=1)
    for step in (1, 2, 3, 5):
        value = term(term_context(identity_sae(), space, step))
        assert value.item() == 0.0
        assert not value.requires_grad
    assert model.asked == []
    assert term(term_context(identity_sae(), space, 4)).requires_grad
    assert model.asked


def test_sequences_take_turns():
    model = ReadOut()
    space = OutputSpace(model, sequences([FORGET[0]] * 5), sequences([RETAIN[0]] * 5))
    term = OutputKL(every_n_steps=3, n_sequences=2, n_features=1)
    for step, rows in ((0, [0, 1]), (3, [2, 3]), (6, [4, 0])):
        model.asked.clear()
        term(term_context(identity_sae(), space, step))
        assert all(torch.equal(tokens, space.forget.tokens[rows]) for tokens, _, _ in model.asked)


def test_only_tokens_before_an_editable_token_are_scored():
    model = ReadOut()
    editable = [[False, True, True, True, False], [False, True, False, True, True]]
    side = sequences(torch.rand(2, 5, 3), editable)
    every_step(n_sequences=2)(term_context(identity_sae(), OutputSpace(model, side, side)))
    scored = torch.tensor([[False, True, True, False, False], [False, False, False, True, False]])
    assert all(torch.equal(positions, scored) for _, _, positions in model.asked)
    none = sequences(torch.rand(1, 5, 3), [[False, True, False, True, False]])
    model.asked.clear()
    assert every_step()(term_context(identity_sae(), OutputSpace(model, none, side))).item() == 0.0
    assert model.asked == []


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize(
    "build",
    [
        lambda: TopKTrainingSAE(TopKTrainingSAEConfig(d_in=3, d_sae=6, k=2)),
        lambda: TopKTrainingSAE(TopKTrainingSAEConfig(d_in=3, d_sae=6, k=2, rescale_acts_by_decoder_norm=False)),
        lambda: StandardTrainingSAE(StandardTrainingSAEConfig(d_in=3, d_sae=6)),
    ],
    ids=["topk", "topk without rescaling", "standard"],
)
def test_the_edit_is_the_clamp_of_the_evaluation(build, scale):
    torch.manual_seed(0)
    model, sae = ReadOut(), build()
    editable = [[False, True, True, True, True, False]] * 4
    forget, retain = (sequences(8 * torch.randn(4, 6, 3), editable) for _ in range(2))
    space = OutputSpace(model, forget, retain, scale)
    every_step(n_features=4, multiplier=5.0, n_sequences=4)(term_context(sae, space))
    clamped = edit_residual(sae, forget.residual * scale, range(4), Clamp(5.0), forget.editable) / scale
    # No token after the last editable one runs.
    found = [residual for tokens, residual, _ in model.asked if torch.equal(tokens, forget.tokens[:, :5])]
    assert any(torch.allclose(residual, clamped[:, :5], atol=1e-4) for residual in found)
    assert not torch.allclose(clamped, forget.residual, atol=0.1)


def test_sentences_count_beside_sequences_position_by_position():
    # The sentence has two positions, on which feature 0 fires; the sequence has one, on which it does not.
    silent = [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    sentence = [[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    sentences = Sides(sequences(sentence), sequences(RETAIN))
    space = OutputSpace(ReadOut(), sequences(silent), sequences(RETAIN), sentences=sentences)
    uniform = [
        -math.log(3) + math.log(sum(map(math.exp, logits))) - sum(logits) / 3 for logits in ([0, 2, 0], [-1, 0, 0])
    ]
    expected = (uniform[0] + 2 * uniform[1]) / 3
    assert every_step(n_sentences=1)(term_context(identity_sae(), space)).item() == pytest.approx(expected, abs=1e-5)
    alone = every_step(n_sentences=1, n_sequences=0)(term_context(identity_sae(), space))
    assert alone.item() == pytest.approx(uniform[1], abs=1e-5)
    with pytest.raises(ConfigError, match="Set corpora"):
        every_step(n_sentences=1)(term_context(identity_sae(), replace(space, sentences=None)))


def test_retain_text_that_no_edit_reaches_does_not_run_and_counts_as_unchanged():
    model = ReadOut()
    fires, silent = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    values = []
    for retain in ([fires], [fires, silent, silent]):
        model.asked.clear()
        space = OutputSpace(model, sequences(FORGET), sequences(retain))
        term = every_step(n_sequences=1, retain_per_forget=len(retain), forget_weight=0.0)
        values.append(term(term_context(identity_sae(), space)).item())
        assert sum(len(tokens) for tokens, *_ in model.asked) == 1 + 2
    assert values[0] > 0.1
    assert values[1] == pytest.approx(values[0] / 3)


def test_firing_features_are_those_of_forget_text_that_retain_text_lacks():
    model = ReadOut()
    # Feature 0 fires on both sides, 1 on one forget token in four and 2 on two; nothing else fires.
    forget = [[[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    retain = [[[1.0, 0.0, 0.0]] * 4]
    space = OutputSpace(model, sequences(forget), sequences(retain))
    for n_features, changed in ((1, [2]), (2, [1, 2]), (3, [1, 2])):
        model.asked.clear()
        every_step(features="firing", n_features=n_features)(term_context(identity_sae(), space))
        differences = torch.stack([residual - space.forget.residual for _, residual, _ in model.asked[-1:]])
        assert differences.abs().sum(dim=(0, 1, 2)).nonzero().squeeze(1).tolist() == changed


def test_without_a_feature_to_clamp_there_is_a_value_and_no_gradient():
    space = OutputSpace(ReadOut(), sequences(FORGET), sequences(FORGET))
    sae = identity_sae()
    value = every_step(features="firing")(term_context(sae, space))
    value.backward()
    uniform = -math.log(3) + math.log(math.e + 2) - 1 / 3
    assert value.item() == pytest.approx(uniform, abs=1e-5)
    assert sae.W_dec.grad is not None
    assert torch.all(sae.W_dec.grad == 0)


def test_the_gate_lets_a_silent_feature_start_to_fire_where_that_helps():
    space = OutputSpace(ReadOut(), sequences(FORGET), sequences(RETAIN))
    # With a bias of -1.5 feature 0 does not fire on the forget token; a clamp would lower the logit that stands out.
    sae = identity_sae(bias=-1.5)
    every_step(retain_weight=0.0)(term_context(sae, space)).backward()
    assert sae.b_enc.grad is not None
    assert sae.b_enc.grad[0] < 0
    assert torch.all(sae.b_enc.grad[1:] == 0)


def test_without_steepness_a_silent_feature_stays_silent():
    space = OutputSpace(ReadOut(), sequences(FORGET), sequences(RETAIN))
    sae = identity_sae(bias=-1.5)
    every_step(retain_weight=0.0, steepness=0.0)(term_context(sae, space)).backward()
    assert sae.b_enc.grad is not None
    assert torch.all(sae.b_enc.grad == 0)


def test_on_the_tiny_model_forget_text_is_unlearned_and_retain_text_kept(tiny):
    generator = torch.Generator().manual_seed(0)

    def text(lowest, highest):
        tokens = torch.randint(lowest, highest, (8, 16), generator=generator)
        editable = torch.ones_like(tokens, dtype=torch.bool)
        editable[:, 0] = False
        return Sequences(tokens, residual_at_hook(tiny, HOOK, tokens), editable)

    space = OutputSpace(ModelAboveHook(tiny, HOOK), text(10, 60), text(120, 200), activation_scale=0.2)
    torch.manual_seed(0)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=32, d_sae=64, k=8))
    term = OutputKL(
        objective="npo", objective_options={"beta": 1.0}, n_features=8, multiplier=8.0, every_n_steps=1, n_sequences=8
    )
    forget, retain = replace(term, retain_weight=0.0), replace(term, forget_weight=0.0)
    assert forget(term_context(sae, space)).item() == pytest.approx(2 * math.log(2), abs=0.05)
    optimizer = torch.optim.Adam([sae.W_dec, sae.W_enc], lr=1e-2)
    for step in range(25):
        optimizer.zero_grad()
        term(term_context(sae, space, step)).backward()
        optimizer.step()
    assert forget(term_context(sae, space)).item() < 1.25
    assert retain(term_context(sae, space)).item() < 0.02


def test_it_needs_prepared_sequences():
    assert OutputKL.needs_output_space
    with pytest.raises(ConfigError, match="the run has prepared none"):
        OutputKL()(make_context(torch.zeros(2, 3)))


def test_it_refuses_an_sae_whose_edits_are_not_sums_of_decoder_rows():
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=3, d_sae=3, normalize_activations="layer_norm"))
    space = OutputSpace(ReadOut(), sequences(FORGET), sequences(RETAIN))
    with pytest.raises(ConfigError, match="'layer_norm'"):
        every_step()(term_context(sae, space))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "unifrm"}, "Did you mean 'uniform'"),
        ({"objective_options": {"beta": 1.0}}, "Unknown key"),
        ({"features": "all"}, '"reserved" or "firing"'),
        ({"n_features": 0}, "must be 1 or more"),
        ({"every_n_steps": 0}, "must be 1 or more"),
        ({"n_sequences": 0}, "one of them 1 or more"),
        ({"n_sentences": -1}, "both must be 0 or more"),
        ({"retain_per_forget": 0}, "must be 1 or more"),
        ({"multiplier": 0.0}, "must be above 0"),
        ({"retain_weight": -1.0}, "must be 0 or more"),
        ({"steepness": -1.0}, "must be 0 or more"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        OutputKL(**options)

"""The sentence margin by hand, its gradients, and what it learns."""

import math

import pytest
import torch
from made_context import make_context
from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, StandardTrainingSAE, StandardTrainingSAEConfig

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import OutputSpace, SentenceMargin, Sequences, Sides


def no_model(*_args):
    raise AssertionError("the term runs no model")


def text(residual, editable=None):
    residual = torch.tensor(residual, dtype=torch.float32)
    mask = torch.ones(residual.shape[:2], dtype=torch.bool) if editable is None else torch.tensor(editable)
    return Sequences(torch.zeros(residual.shape[:2], dtype=torch.long), residual, mask)


def identity_sae():
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=2, d_sae=2))
    sae.W_enc.data, sae.W_dec.data = torch.eye(2), torch.eye(2)
    return sae


def space_of(forget, retain, sequences=None, scale=1.0):
    whole = text([[[0.0, 0.0]]]) if sequences is None else sequences
    return OutputSpace(no_model, whole, whole, scale, Sides(forget, retain))


def value(term, space, sae=None, step=0):
    sae = identity_sae() if sae is None else sae
    # Nothing is silent in this batch, so that the firing level is 0.
    acts = torch.ones(2, 2)
    return term(make_context(acts, hidden_pre=acts, step=step, sae=sae, output_space=space))


def term(**options):
    return SentenceMargin(
        **{
            "n_features": 1,
            "n_sentences": 1,
            "retain_per_forget": 1,
            "n_sequences": 0,
            "min_tokens": 9,
            "temperature": 1.0,
            "hard_share": 1.0,
            "strictness": 0.0,
            "trimmed_sentences": 0.0,
            "trimmed_tokens": 0.0,
            **options,
        }
    )


def softplus(x):
    return math.log(1 + math.exp(x))


# Feature 0 reads dimension 0: 2 and -1 on the tokens of a forget sentence, -3 and 1 on those of a retain sentence.
FORGET = text([[[2.0, 9.0], [-1.0, 9.0]]])
RETAIN = text([[[-3.0, 9.0], [1.0, 9.0]]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"token_share": 0.0, "retain_weight": 0.0}, softplus(-2)),
        ({"token_share": 1.0, "retain_weight": 0.0}, (softplus(-2) + softplus(1)) / 2),
        ({"token_share": 0.25, "retain_weight": 0.0}, 0.75 * softplus(-2) + 0.25 * (softplus(-2) + softplus(1)) / 2),
        ({"forget_weight": 0.0, "retain_weight": 1.0}, softplus(1)),
        ({"forget_weight": 0.0, "retain_weight": 3.0}, 3 * softplus(1)),
        ({"token_share": 0.0, "margin": 1.5, "retain_weight": 1.0}, softplus(1.5 - 2) + softplus(1.5 + 1)),
        ({"token_share": 0.0, "strictness": 0.5, "retain_weight": 1.0}, softplus(-0.5 - 2) + softplus(0.5 + 1)),
    ],
)
def test_the_value_by_hand(options, expected):
    assert value(term(**options), space_of(FORGET, RETAIN)).item() == pytest.approx(expected, abs=1e-5)


def test_a_huge_token_of_the_batch_does_not_move_the_firing_level():
    huge = torch.tensor([[1.0, 0.0], [1.0, 0.0], [9e4, 8e4]])
    acts = huge * torch.tensor([1.0, 0.0])
    ctx = make_context(acts, hidden_pre=huge, sae=identity_sae(), output_space=space_of(FORGET, RETAIN))
    found = term(token_share=0.0, retain_weight=0.0)(ctx)
    assert found.item() == pytest.approx(softplus(0.5 - 2), abs=1e-5)


def test_the_strongest_reserved_feature_of_a_token_counts_and_others_do_not():
    assert value(term(token_share=0.0, retain_weight=0.0), space_of(FORGET, RETAIN)).item() == pytest.approx(
        softplus(-2), abs=1e-5
    )
    both = term(token_share=0.0, retain_weight=0.0, n_features=2)
    assert value(both, space_of(FORGET, RETAIN)).item() == pytest.approx(softplus(-9), abs=1e-5)


@pytest.mark.parametrize(
    ("share", "counted"), [(1.0, [3, 1, -1, -3]), (0.5, [3, 1]), (0.3, [3, 1]), (0.25, [3]), (0.001, [3])]
)
def test_the_hardest_share_of_retain_text_counts_rounded_up(share, counted):
    retain = text([[[-3.0, 0.0]], [[1.0, 0.0]], [[3.0, 0.0]], [[-1.0, 0.0]]])
    found = value(
        term(forget_weight=0.0, retain_weight=1.0, retain_per_forget=4, hard_share=share), space_of(FORGET, retain)
    )
    assert found.item() == pytest.approx(sum(map(softplus, counted)) / len(counted), abs=1e-5)


@pytest.mark.parametrize(
    ("trimmed", "counted"), [(0.0, [-4, -2, 0, 2]), (0.25, [-4, -2, 0]), (0.3, [-4, -2, 0]), (0.9, [-4])]
)
def test_the_forget_sentences_and_tokens_of_the_highest_loss_are_left_out(trimmed, counted):
    forget = text([[[4.0, 0.0]], [[-2.0, 0.0]], [[2.0, 0.0]], [[0.0, 0.0]]])
    expected = sum(map(softplus, counted)) / len(counted)
    of_sentences = term(token_share=0.0, retain_weight=0.0, n_sentences=4, trimmed_sentences=trimmed)
    assert value(of_sentences, space_of(forget, RETAIN)).item() == pytest.approx(expected, abs=1e-5)
    of_tokens = term(token_share=1.0, retain_weight=0.0, n_sentences=4, trimmed_tokens=trimmed)
    assert value(of_tokens, space_of(forget, RETAIN)).item() == pytest.approx(expected, abs=1e-5)


def test_tokens_that_no_edit_may_change_do_not_count():
    forget = text([[[2.0, 0.0], [-1.0, 0.0], [7.0, 0.0]]], [[False, True, False]])
    found = value(term(token_share=1.0, retain_weight=0.0), space_of(forget, RETAIN))
    assert found.item() == pytest.approx(softplus(1), abs=1e-5)


def test_activations_are_scaled_as_in_training():
    found = value(term(token_share=0.0, retain_weight=0.0), space_of(FORGET, RETAIN, scale=0.5))
    assert found.item() == pytest.approx(softplus(-1), abs=1e-5)


def test_the_temperature_divides_the_excess():
    found = value(term(token_share=0.0, retain_weight=0.0, temperature=0.5), space_of(FORGET, RETAIN))
    assert found.item() == pytest.approx(softplus(-4), abs=1e-5)


def test_the_level_is_that_at_which_features_fire():
    space, sae = space_of(FORGET, RETAIN), identity_sae()
    # One feature fires at 3 and the other is silent at 1, as among the top k: the level is 2.
    ctx = make_context(torch.tensor([[3.0, 0.0]]), hidden_pre=torch.tensor([[3.0, 1.0]]), sae=sae, output_space=space)
    assert term(token_share=0.0, retain_weight=0.0)(ctx).item() == pytest.approx(softplus(0), abs=1e-5)


def test_a_jumprelu_sae_has_levels_of_its_own():
    sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(d_in=2, d_sae=2))
    sae.W_enc.data, sae.W_dec.data = torch.eye(2), torch.eye(2)
    sae.threshold.data = torch.tensor([1.5, 8.0])
    found = value(term(token_share=0.0, retain_weight=0.0), space_of(FORGET, RETAIN), sae)
    assert found.item() == pytest.approx(softplus(-0.5), abs=1e-5)


def test_forget_sentences_end_at_a_token_drawn_by_the_step_alone():
    forget = text([[[float(i), 0.0] for i in range(10)]] * 64)
    options = {"token_share": 0.0, "retain_weight": 0.0, "n_sentences": 64, "min_tokens": 4}
    values = [value(term(**options), space_of(forget, RETAIN), step=step).item() for step in (0, 1, 0)]
    assert values[0] == values[2] != values[1]
    # The strongest token is the last that counts: the fourth at the earliest, the tenth at the latest.
    assert all(softplus(-9) < found < softplus(-3) for found in values)
    whole = value(term(**{**options, "min_tokens": 10}), space_of(forget, RETAIN))
    assert whole.item() == pytest.approx(softplus(-9), abs=1e-5)


def test_windows_of_retain_sequences_count_as_sentences_do():
    # Three windows of 32 tokens and a rest that is left out; the strongest tokens are 0, 5 and 0.
    sequence = torch.zeros(1, 100, 2)
    sequence[0, 40, 0], sequence[0, 98, 0] = 5.0, 50.0
    whole = Sequences(torch.zeros(1, 100, dtype=torch.long), sequence, torch.ones(1, 100, dtype=torch.bool))
    found = value(term(forget_weight=0.0, n_sequences=1, retain_weight=1.0), space_of(FORGET, RETAIN, whole))
    assert found.item() == pytest.approx((softplus(1) + 2 * softplus(0) + softplus(5)) / 4, abs=1e-5)


def test_the_gradient_raises_forget_tokens_and_lowers_the_strongest_retain_token():
    forget = text([[[1.0, 0.0], [0.0, 1.0]]])
    retain = text([[[-1.0, 0.0], [0.5, 0.0]]])
    sae = identity_sae()
    value(term(retain_weight=0.0), space_of(forget, retain), sae).backward()
    assert sae.b_enc.grad is not None
    assert sae.b_enc.grad[0] < 0
    assert sae.b_enc.grad[1] == 0
    sae = identity_sae()
    value(term(forget_weight=0.0, retain_weight=2.0), space_of(forget, retain), sae).backward()
    assert sae.W_enc.grad is not None
    slope = 2.0 / (1 + math.exp(-0.5))
    assert sae.W_enc.grad[:, 0].tolist() == pytest.approx([0.5 * slope, 0.0], abs=1e-5)


def test_it_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="the run has prepared none"):
        SentenceMargin()(make_context(torch.zeros(2, 64)))
    with pytest.raises(ConfigError, match="Set corpora"):
        value(term(), OutputSpace(no_model, RETAIN, RETAIN))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_features": 0}, "must be 1 or more"),
        ({"n_sequences": -1}, "must be 0 or more"),
        ({"token_share": 1.5}, r"must be in \[0, 1\]"),
        ({"trimmed_sentences": 1.0}, r"trimmed_sentences is 1.0; it must be in \[0, 1\)"),
        ({"trimmed_tokens": -0.1}, r"trimmed_tokens is -0.1; it must be in \[0, 1\)"),
        ({"hard_share": 0.0}, "hard_share is 0.0; it must be above 0"),
        ({"retain_weight": -1.0}, "must be 0 or more"),
        ({"temperature": 0.0}, "must be above 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SentenceMargin(**options)

"""How loss terms are built, the token sample they share, and the forget margin against values worked out by hand."""

from dataclasses import dataclass

import pytest
import torch
from made_context import make_context

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import (
    FORGET,
    GENERAL,
    LOSS_TERMS,
    RETAIN,
    ForgetMargin,
    LossTerm,
    build_loss_terms,
    register_loss_term,
)


def test_the_sample_is_evenly_spaced_and_keeps_the_domains_shares():
    acts = torch.arange(2048.0)[:, None].expand(-1, 3)
    domains = torch.tensor([GENERAL] * 1024 + [FORGET] * 512 + [RETAIN] * 512)
    sample = make_context(acts, domains).sample
    assert torch.equal(sample.feature_acts[:, 0], torch.arange(0.0, 2048.0, 4))
    assert sample.labels().bincount().tolist() == [256, 128, 128]
    few = make_context(acts[:700], domains[:700]).sample
    assert torch.equal(few.feature_acts, acts[:700])


def test_the_gradient_through_the_sample_is_that_of_its_rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2048, 3, generator=generator)
    weights = torch.randn(3, 5, generator=generator)

    def gradient(loss_on_rows):
        W_enc = weights.clone().requires_grad_()
        hidden_pre = x @ W_enc
        acts = torch.relu(hidden_pre)
        # A reconstruction beside the term, as in a training step.
        loss = acts.square().mean() + loss_on_rows(make_context(acts, hidden_pre=hidden_pre))
        loss.backward()
        return W_enc.grad

    def on_sample(ctx):
        few = ctx.pre_activations(torch.tensor([3, 1])).cos().mean()
        few = few + ctx.pre_activations(torch.tensor([4, 0]), sampled=True).exp().mean()
        return (ctx.sample.feature_acts**3).mean() + ctx.sample.hidden_pre.sin().mean() + few

    def on_rows(ctx):
        few = ctx.hidden_pre[:, [3, 1]].cos().mean() + ctx.hidden_pre[::4][:, [4, 0]].exp().mean()
        return (ctx.feature_acts[::4] ** 3).mean() + ctx.hidden_pre[::4].sin().mean() + few

    torch.testing.assert_close(gradient(on_sample), gradient(on_rows))


def test_forget_margin_by_hand():
    hidden_pre = torch.tensor([[3.0, -1.0, 9.0], [0.5, 1.5, 9.0], [2.0, 1.0, 9.0], [-4.0, 0.5, 9.0]])
    labels = [FORGET, FORGET, GENERAL, RETAIN]
    ctx = make_context(torch.relu(hidden_pre), labels, hidden_pre=hidden_pre)
    # Reserved features 0 and 1; margin 2. Forget tokens reach 3 and 1.5: shortfall 0 and 0.5, mean 0.25.
    # Other tokens leak 2 + 1 = 3 and 0.5: mean 1.75.
    assert ForgetMargin(n_features=2, margin=2.0)(ctx).item() == pytest.approx(2.0)
    weighted = ForgetMargin(n_features=2, margin=2.0, retain_weight=2.0, forget_weight=4.0)(ctx)
    assert weighted.item() == pytest.approx(2 * 1.75 + 4 * 0.25)


def test_forget_margin_gradient_raises_forget_and_lowers_the_rest():
    hidden_pre = torch.full((2, 3), 0.5, requires_grad=True)
    ctx = make_context(torch.zeros(2, 3), [FORGET, RETAIN], hidden_pre=hidden_pre)
    ForgetMargin(n_features=1, margin=1.0)(ctx).backward()
    assert hidden_pre.grad is not None
    assert hidden_pre.grad[0, 0] < 0 < hidden_pre.grad[1, 0]
    assert torch.all(hidden_pre.grad[:, 1:] == 0)


@pytest.mark.parametrize(
    ("loss_terms", "message"),
    [
        ({"forget_margn": {"coefficient": 1}}, "Did you mean 'forget_margin'"),
        ({"forget_margin": {}}, "has no coefficient"),
        ({"forget_margin": {"coefficient": "1"}}, "must be of type float"),
        ({"forget_margin": {"coefficient": float("nan")}}, "finite"),
        ({"forget_margin": {"coefficient": 1, "warm_up_steps": -1}}, "must be 0 or more"),
        ({"forget_margin": {"coefficient": 1, "n_featurs": 3}}, "Did you mean 'n_features'"),
        ({"forget_margin": {"coefficient": 1, "n_features": 2.5}}, "must be of type int"),
        ({"forget_margin": {"coefficient": 1, "n_features": 0}}, "must be 1 or more"),
        ({"supervised_contrastive": {"coefficient": 1, "temperature": 0}}, "must be above 0"),
        ({"forget_margin": 0.1}, "must be a mapping"),
    ],
)
def test_wrong_terms_are_refused(loss_terms, message):
    with pytest.raises(ConfigError, match=message):
        build_loss_terms(loss_terms)


def test_a_term_carries_its_coefficient_and_warm_up():
    built = build_loss_terms({"forget_margin": {"coefficient": 2, "warm_up_steps": 7, "margin": 3}})
    assert built["forget_margin"].coefficient == 2.0
    assert built["forget_margin"].warm_up_steps == 7
    assert built["forget_margin"].term == ForgetMargin(margin=3.0)


def test_a_name_is_registered_once():
    @dataclass(frozen=True)
    class Another(LossTerm):
        def __call__(self, ctx):
            return ctx.sae_in.sum()

    with pytest.raises(ValueError, match="already registered"):
        register_loss_term("forget_margin")(Another)
    assert LOSS_TERMS["forget_margin"] is ForgetMargin

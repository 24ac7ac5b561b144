"""Loss terms against values worked out by hand, and the direction of their gradients."""

import math
from dataclasses import dataclass

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import (
    FORGET,
    GENERAL,
    LOSS_TERMS,
    RETAIN,
    ForgetMargin,
    GroupContrastive,
    LossContext,
    LossTerm,
    SupervisedContrastive,
    build_loss_terms,
    register_loss_term,
)


def context(acts, domains=None, groups=(), hidden_pre=None):
    acts = torch.as_tensor(acts, dtype=torch.float32)
    return LossContext(
        sae_in=torch.zeros(len(acts), 2),
        sae_out=torch.zeros(len(acts), 2),
        feature_acts=acts,
        hidden_pre=acts if hidden_pre is None else hidden_pre,
        W_dec=torch.zeros(acts.shape[1], 2),
        domains=None if domains is None else torch.tensor(domains),
        groups=tuple(torch.tensor(group) for group in groups),
    )


def test_group_contrastive_is_the_mean_squared_correlation_within_groups():
    # Features 0 and 1 are perfectly correlated, 2 is uncorrelated with both, 3 is anti-correlated with 0.
    acts = [[1.0, 2.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    term = GroupContrastive()
    assert term(context(acts, groups=[[0, 1]])).item() == pytest.approx(1.0, abs=1e-5)
    assert term(context(acts, groups=[[0, 2]])).item() == pytest.approx(0.0, abs=1e-5)
    assert term(context(acts, groups=[[0, 3]])).item() == pytest.approx(1.0, abs=1e-5)
    # Within (0, 1, 2) one pair of three has correlation 1: the mean is 1/3; over two groups the mean of 1/3 and 0.
    assert term(context(acts, groups=[[0, 1, 2], [0, 2]])).item() == pytest.approx(1 / 6, abs=1e-5)


def test_group_contrastive_leaves_out_features_that_do_not_vary():
    acts = [[1.0, 2.0, 5.0], [0.0, 0.0, 5.0]]
    term = GroupContrastive()
    assert term(context(acts, groups=[[0, 1, 2]])).item() == pytest.approx(1.0, abs=1e-5)
    assert term(context(acts, groups=[[0, 2]])).item() == 0.0
    assert term(context(acts)).item() == 0.0


def test_group_contrastive_gradient_lowers_the_correlation():
    acts = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    acts[:, 1] = acts[:, 0] + 0.1 * acts[:, 1]
    acts.requires_grad_()
    before = GroupContrastive()(context_of(acts, [[0, 1]]))
    before.backward()
    assert acts.grad is not None
    after = GroupContrastive()(context_of((acts - 0.5 * acts.grad).detach(), [[0, 1]]))
    assert after < before
    assert torch.all(acts.grad[:, 2:] == 0)


def context_of(acts, groups):
    base = context(torch.zeros(len(acts), acts.shape[1]), groups=groups)
    return LossContext(**{**vars(base), "feature_acts": acts, "hidden_pre": acts})


def test_group_contrastive_gradient_is_finite_where_features_are_dead():
    acts = torch.zeros(8, 3, requires_grad=True)
    GroupContrastive()(context_of(acts * 1.0, [[0, 1, 2]])).backward()
    assert acts.grad is not None
    assert torch.isfinite(acts.grad).all()


def test_supervised_contrastive_by_hand():
    # Two forget tokens along feature 0, two retain tokens along feature 1; temperature 1.
    acts = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]
    labels = [FORGET, FORGET, RETAIN, RETAIN]
    # Each anchor sees one positive at similarity 1 and two negatives at 0.
    expected = -math.log(math.e / (math.e + 2))
    assert SupervisedContrastive(temperature=1.0)(context(acts, labels)).item() == pytest.approx(expected, abs=1e-5)


def test_supervised_contrastive_ignores_general_and_silent_tokens():
    acts = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]
    labels = [FORGET, FORGET, RETAIN, RETAIN]
    term = SupervisedContrastive(temperature=1.0)
    more = term(context([*acts, [1.0, 1.0], [0.0, 0.0]], [*labels, GENERAL, FORGET]))
    assert more.item() == pytest.approx(term(context(acts, labels)).item(), abs=1e-6)


def test_supervised_contrastive_is_lower_when_domains_are_apart():
    term = SupervisedContrastive()
    labels = [FORGET, FORGET, RETAIN, RETAIN]
    apart = term(context([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]], labels))
    mixed = term(context([[1.0, 0.1], [0.0, 1.0], [1.0, 0.0], [0.1, 1.0]], labels))
    assert apart < mixed


def test_supervised_contrastive_without_a_positive_is_zero():
    assert SupervisedContrastive()(context([[1.0, 0.0], [0.0, 1.0]], [FORGET, RETAIN])).item() == 0.0


def test_forget_margin_by_hand():
    hidden_pre = torch.tensor([[3.0, -1.0, 9.0], [0.5, 1.5, 9.0], [2.0, 1.0, 9.0], [-4.0, 0.5, 9.0]])
    labels = [FORGET, FORGET, GENERAL, RETAIN]
    ctx = context(torch.relu(hidden_pre), labels, hidden_pre=hidden_pre)
    # Reserved features 0 and 1; margin 2. Forget tokens reach 3 and 1.5: shortfall 0 and 0.5, mean 0.25.
    # Other tokens leak 2 + 1 = 3 and 0.5: mean 1.75.
    assert ForgetMargin(n_features=2, margin=2.0)(ctx).item() == pytest.approx(2.0)
    weighted = ForgetMargin(n_features=2, margin=2.0, retain_weight=2.0, forget_weight=4.0)(ctx)
    assert weighted.item() == pytest.approx(2 * 1.75 + 4 * 0.25)


def test_forget_margin_gradient_raises_forget_and_lowers_the_rest():
    hidden_pre = torch.full((2, 3), 0.5, requires_grad=True)
    ctx = context(torch.zeros(2, 3), [FORGET, RETAIN], hidden_pre=hidden_pre)
    ForgetMargin(n_features=1, margin=1.0)(ctx).backward()
    assert hidden_pre.grad is not None
    assert hidden_pre.grad[0, 0] < 0 < hidden_pre.grad[1, 0]
    assert torch.all(hidden_pre.grad[:, 1:] == 0)


def test_terms_on_labels_refuse_a_batch_without_them():
    for term in (ForgetMargin(n_features=1), SupervisedContrastive()):
        with pytest.raises(ConfigError, match="forget and a retain corpus"):
            term(context([[1.0, 0.0]]))


def test_forget_margin_refuses_more_features_than_the_sae_has():
    with pytest.raises(ConfigError, match="the SAE has 2 features"):
        ForgetMargin(n_features=3)(context([[1.0, 0.0]], [FORGET]))


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

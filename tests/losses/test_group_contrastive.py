"""Diversity and separation of correlation groups, exact on small groups and estimated on large ones."""

import pytest
import torch
from made_context import make_context

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import GroupContrastive

# Features 0 and 1 are perfectly correlated, 2 is uncorrelated with both, 3 is anti-correlated with 0.
ACTS = [[1.0, 2.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def test_diversity_is_the_mean_squared_correlation_within_groups():
    term = GroupContrastive()
    assert term(make_context(ACTS, groups=[[0, 1]])).item() == pytest.approx(1.0, abs=1e-5)
    assert term(make_context(ACTS, groups=[[0, 2]])).item() == pytest.approx(0.0, abs=1e-5)
    assert term(make_context(ACTS, groups=[[0, 3]])).item() == pytest.approx(1.0, abs=1e-5)
    # Within (0, 1, 2) one pair of three has correlation 1: the mean is 1/3; over two groups the mean of 1/3 and 0.
    assert term(make_context(ACTS, groups=[[0, 1, 2], [0, 2]])).item() == pytest.approx(1 / 6, abs=1e-5)


def test_a_group_with_more_features_than_tokens_is_as_exact():
    # Two tokens: features 0, 1 and 3 vary and have correlations of size 1; the gram over tokens is the smaller.
    assert GroupContrastive()(make_context(ACTS[:2], groups=[[0, 1, 3]])).item() == pytest.approx(1.0, abs=1e-5)


def test_features_that_do_not_vary_are_left_out():
    acts = [[1.0, 2.0, 5.0], [0.0, 0.0, 5.0]]
    term = GroupContrastive()
    assert term(make_context(acts, groups=[[0, 1, 2]])).item() == pytest.approx(1.0, abs=1e-5)
    assert term(make_context(acts, groups=[[0, 2]])).item() == 0.0
    assert term(make_context(acts)).item() == 0.0


def test_the_gradient_lowers_the_correlation():
    acts = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    acts[:, 1] = acts[:, 0] + 0.1 * acts[:, 1]
    acts.requires_grad_()
    before = GroupContrastive()(make_context(acts, groups=[[0, 1]]))
    before.backward()
    assert acts.grad is not None
    assert GroupContrastive()(make_context((acts - 0.5 * acts.grad).detach(), groups=[[0, 1]])) < before
    assert torch.all(acts.grad[:, 2:] == 0)


def test_the_gradient_is_finite_where_features_are_dead():
    acts = torch.zeros(8, 3, requires_grad=True)
    GroupContrastive()(make_context(acts * 1.0, groups=[[0, 1, 2]])).backward()
    assert acts.grad is not None
    assert torch.isfinite(acts.grad).all()


def test_a_large_group_is_estimated_without_bias():
    # Features 0 to 5 share a cause, the rest is noise: the pairs differ, so a biased choice of pairs would show.
    generator = torch.Generator().manual_seed(0)
    acts = torch.rand(64, 12, generator=generator)
    acts[:, :6] += 2 * torch.rand(64, 1, generator=generator)
    correlation = torch.corrcoef(acts.T).square()
    exact = (correlation.sum() - 12) / (12 * 11)
    term = GroupContrastive(max_features=4)
    values = torch.stack([term(make_context(acts, groups=[range(12)], step=step)) for step in range(800)])
    assert values.mean().item() == pytest.approx(exact.item(), rel=0.05)
    assert values.std() > 0.02
    assert GroupContrastive(max_features=12)(make_context(acts, groups=[range(12)])) == pytest.approx(exact)


def test_many_groups_are_estimated_without_bias():
    # Groups (0, 1), (0, 2) and (1, 2) have squared correlations 1, 0 and 0; two of them at a time.
    groups = [[0, 1], [0, 2], [1, 2]]
    term = GroupContrastive(max_groups=2)
    values = torch.stack([term(make_context(ACTS, groups=groups, step=step)) for step in range(600)])
    assert set(values.round(decimals=4).tolist()) == {0.0, 0.5}
    assert values.mean().item() == pytest.approx(1 / 3, abs=0.03)


def test_the_step_alone_decides_what_is_looked_at():
    acts = torch.rand(32, 20, generator=torch.Generator().manual_seed(0))
    term = GroupContrastive(max_features=3)
    first, again, other = (term(make_context(acts, groups=[range(20)], step=step)) for step in (7, 7, 8))
    assert first == again != other


def test_separation_is_the_squared_cosine_of_centroids():
    # Unit rows: e1 and e2 in the first group, e1 in the second, -e1 in the third.
    W_dec = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-4.0, 0.0]])
    groups = [[0, 1], [2, 3], [4, 5]]
    ctx = make_context(torch.zeros(3, 6), groups=groups, W_dec=W_dec)
    # cos(first, second) = 1/sqrt(2); the other two pairs point apart and count 0.
    assert GroupContrastive(separation_weight=1.0)(ctx).item() == pytest.approx(0.5 / 3, abs=1e-6)
    one_group = make_context(torch.zeros(3, 6), groups=groups[:1], W_dec=W_dec)
    assert GroupContrastive(separation_weight=1.0)(one_group).item() == 0.0


def test_the_parts_are_weighed():
    W_dec = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    ctx = make_context(ACTS, groups=[[0, 1], [2, 3]], W_dec=W_dec)
    diversity = GroupContrastive()(ctx).item()
    # cos of 45 degrees, squared
    expected = 2 * diversity + 3 * 0.5
    assert GroupContrastive(diversity_weight=2.0, separation_weight=3.0)(ctx).item() == pytest.approx(expected)


def test_a_gradient_step_on_the_decoder_lowers_the_cosine_of_groups():
    W_dec = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    term = GroupContrastive(diversity_weight=0.0, separation_weight=1.0)
    groups = [[0, 1, 2], [3, 4, 5]]
    before = term(make_context(torch.zeros(2, 6), groups=groups, W_dec=W_dec))
    before.backward()
    assert W_dec.grad is not None

    def cosine(rows):
        unit = torch.nn.functional.normalize(rows, dim=1)
        return torch.cosine_similarity(unit[:3].mean(dim=0), unit[3:].mean(dim=0), dim=0)

    assert cosine(W_dec - 0.5 * W_dec.grad) < cosine(W_dec) - 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity_weight": -1.0}, "must be 0 or more"),
        ({"separation_weight": -1.0}, "must be 0 or more"),
        ({"max_groups": 1}, "must be 2 or more"),
        ({"max_features": 1}, "must be 2 or more"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GroupContrastive(**options)

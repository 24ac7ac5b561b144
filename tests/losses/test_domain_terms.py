"""Terms on domain labels in feature space: supervised contrastive, feature KL, mutual information."""

import math

import pytest
import torch
from made_context import make_context
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import (
    FORGET,
    GENERAL,
    RETAIN,
    FeatureKL,
    ForgetMargin,
    MutualInformation,
    SupervisedContrastive,
)
from sae_lens_contrastive.losses.soft_firing import encode_as_saved, soft_firing

APART = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]
TWO_AND_TWO = [FORGET, FORGET, RETAIN, RETAIN]


def test_supervised_contrastive_by_hand():
    # Two forget tokens along feature 0, two retain tokens along feature 1: each anchor sees one positive at similarity
    # 1 and two negatives at 0.
    expected = -math.log(math.e / (math.e + 2))
    value = SupervisedContrastive(temperature=1.0)(make_context(APART, TWO_AND_TWO))
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_supervised_contrastive_ignores_general_and_silent_tokens():
    term = SupervisedContrastive(temperature=1.0)
    more = term(make_context([*APART, [1.0, 1.0], [0.0, 0.0]], [*TWO_AND_TWO, GENERAL, FORGET]))
    assert more.item() == pytest.approx(term(make_context(APART, TWO_AND_TWO)).item(), abs=1e-6)


def test_supervised_contrastive_compares_half_of_max_tokens_of_each_domain():
    term = SupervisedContrastive(temperature=1.0, max_tokens=4)
    more = term(make_context([*APART, [1.0, 5.0], [4.0, 1.0]], [*TWO_AND_TWO, FORGET, RETAIN]))
    assert more.item() == pytest.approx(term(make_context(APART, TWO_AND_TWO)).item(), abs=1e-6)


def test_supervised_contrastive_is_lower_when_domains_are_apart():
    term = SupervisedContrastive()
    apart = term(make_context([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]], TWO_AND_TWO))
    mixed = term(make_context([[1.0, 0.1], [0.0, 1.0], [1.0, 0.0], [0.1, 1.0]], TWO_AND_TWO))
    assert apart < mixed


def test_supervised_contrastive_has_the_gradient_of_its_value():
    acts = torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float() + 0.1
    labels = [FORGET, RETAIN] * 4
    acts.requires_grad_()
    SupervisedContrastive()(make_context(acts, labels)).backward()
    assert acts.grad is not None
    for token, feature in ((0, 0), (5, 2)):
        shift = torch.zeros_like(acts)
        shift[token, feature] = 1e-2
        above, below = (SupervisedContrastive()(make_context((acts + s).detach(), labels)) for s in (shift, -shift))
        assert acts.grad[token, feature].item() == pytest.approx((above - below).item() / 2e-2, rel=0.02, abs=1e-3)


def test_supervised_contrastive_without_a_positive_is_zero():
    assert SupervisedContrastive()(make_context([[1.0, 0.0], [0.0, 1.0]], [FORGET, RETAIN])).item() == 0.0


def test_feature_kl_by_hand():
    # Mean activations (3, 1) on forget and (1, 3) on retain text: KL = 3/4 ln 3 - 1/4 ln 3.
    acts = [[4.0, 1.0], [2.0, 1.0], [1.0, 3.0], [9.0, 9.0]]
    ctx = make_context(acts, [FORGET, FORGET, RETAIN, GENERAL])
    assert FeatureKL(bound=2.0, eps=1e-6)(ctx).item() == pytest.approx(2 - math.log(3) / 2, abs=1e-5)
    # With eps 1 the means are (4, 2) and (2, 4): KL = 2/3 ln 2 - 1/3 ln 2.
    assert FeatureKL(bound=2.0, eps=1.0)(ctx).item() == pytest.approx(2 - math.log(2) / 3, abs=1e-5)


def test_feature_kl_rises_with_a_gradient_step_and_rests_past_the_bound():
    acts = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = [FORGET, RETAIN, GENERAL] * 4
    term = FeatureKL()
    before = term(make_context(acts, labels))
    before.backward()
    assert acts.grad is not None
    assert torch.all(acts.grad[2::3] == 0)
    assert term(make_context((acts - 0.1 * acts.grad).detach(), labels)) < before
    acts.grad = None
    rested = FeatureKL(bound=1e-3)(make_context(acts, labels))
    rested.backward()
    assert rested.item() == 0.0
    assert torch.all(acts.grad == 0)


@pytest.mark.parametrize("labels", [[FORGET, FORGET], [RETAIN, GENERAL], [FORGET, GENERAL]])
def test_feature_kl_without_one_of_the_domains_is_zero(labels):
    assert FeatureKL()(make_context([[1.0, 0.0], [0.0, 1.0]], labels)).item() == 0.0


def test_soft_firing_is_a_half_midway_between_firing_and_silence():
    hidden_pre = torch.tensor([[3.0, 2.0, 1.0, -1.0], [5.0, 4.0, 3.0, 2.0], [-3.0, -1.0, -2.0, -4.0]])
    # TopK with k = 2 fires on the first two features; on the last token nothing fires and theta is 0.
    acts = torch.relu(hidden_pre) * torch.tensor([1.0, 1.0, 0.0, 0.0])
    found = soft_firing(acts, hidden_pre, torch.tensor([1, 2]), steepness=2.0)
    expected = torch.sigmoid(2 * torch.tensor([[0.5, -0.5], [0.5, -0.5], [-1.0, -2.0]]))
    torch.testing.assert_close(found, expected)


def test_soft_firing_takes_the_thresholds_of_the_sae():
    class WithThresholds:
        threshold = torch.tensor([0.5, 2.0], requires_grad=True)

    hidden_pre = torch.tensor([[1.0, 1.0]])
    found = soft_firing(hidden_pre, hidden_pre, torch.tensor([1]), steepness=3.0, sae=WithThresholds)
    assert found.item() == pytest.approx(1 / (1 + math.exp(3)))
    found.sum().backward()
    assert WithThresholds.threshold.grad is not None
    assert WithThresholds.threshold.grad[0] == 0 > WithThresholds.threshold.grad[1]


def hard_firing(fires):
    """Pre-activations far from 0 on either side, and what ReLU makes of them."""
    hidden_pre = torch.tensor(fires, dtype=torch.float32) * 40 - 20
    return {"acts": torch.relu(hidden_pre), "hidden_pre": hidden_pre}


def test_mutual_information_by_hand():
    # Feature 0 fires on forget text exactly, 1 on half of it, 2 everywhere; 3 never fires.
    planted = hard_firing([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    ctx = make_context(**planted, domains=[FORGET, FORGET, RETAIN, GENERAL])
    assert MutualInformation(n_features=1)(ctx).item() == pytest.approx(0.0, abs=1e-4)
    # I(f_1; y) = H(1/4) - 1/2 H(1/2)
    half = -0.25 * math.log(0.25) - 0.75 * math.log(0.75) - 0.5 * math.log(2)
    expected = math.log(2) - (math.log(2) + half) / 2
    assert MutualInformation(n_features=2)(ctx).item() == pytest.approx(expected, abs=1e-4)
    expected = math.log(2) - (math.log(2) + half) / 4
    assert MutualInformation(n_features=100)(ctx).item() == pytest.approx(expected, abs=1e-4)


def test_mutual_information_without_one_kind_of_token_is_zero():
    for label in (FORGET, RETAIN):
        assert MutualInformation()(make_context([[1.0, 0.0]] * 3, [label] * 3)).item() == 0.0


def test_mutual_information_of_planted_features_rises():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([FORGET, RETAIN] * 100)
    x = torch.randn(200, 6, generator=generator)
    # Column 0 is shifted by 2 on forget text; the constant column 5 lets a feature move its threshold.
    x[:, 0] += 2.0 * (labels == FORGET)
    x[:, 5] = 1.0
    weights = torch.eye(6)[:, :4].clone().requires_grad_()
    term = MutualInformation(n_features=1, steepness=2.0)

    def firing_gap():
        fires = (x @ weights > 0).float()
        return (fires[labels == FORGET].mean(dim=0) - fires[labels == RETAIN].mean(dim=0))[0].item()

    assert firing_gap() < 0.55
    losses = []
    for _ in range(60):
        hidden_pre = x @ weights
        losses.append(term(make_context(torch.relu(hidden_pre), labels, hidden_pre=hidden_pre)))
        (gradient,) = torch.autograd.grad(losses[-1], weights)
        # Feature 0 alone tells the label, so it is the one that is chosen.
        assert torch.all(gradient[:, 1:] == 0)
        with torch.no_grad():
            weights -= gradient
    assert losses[-1] < losses[0] - 0.05
    # Halfway between the two means 84 % of forget and 16 % of retain tokens are above the threshold.
    assert firing_gap() > 0.6


@pytest.mark.parametrize(
    "term", [ForgetMargin(n_features=1), SupervisedContrastive(), FeatureKL(), MutualInformation()], ids=str
)
def test_terms_on_labels_refuse_a_batch_without_them(term):
    assert term.needs_domains
    with pytest.raises(ConfigError, match="forget and a retain corpus"):
        term(make_context([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SupervisedContrastive(max_tokens=3), "must be 4 or more"),
        (lambda: FeatureKL(bound=0.0), "must be above 0"),
        (lambda: FeatureKL(eps=0.0), "must be above 0"),
        (lambda: MutualInformation(n_features=0), "must be 1 or more"),
        (lambda: MutualInformation(steepness=0.0), "must be above 0"),
    ],
)
def test_wrong_options_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_batchtopk_sae_fires_as_it_will_be_saved():
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=2, d_sae=2, k=1, rescale_acts_by_decoder_norm=False))
    sae.W_enc.data, sae.topk_threshold = torch.eye(2), torch.tensor(0.5, dtype=torch.double)
    x = torch.tensor([[3.0, 2.0], [0.4, 0.6]])
    # Two activations for two tokens: in training the first token takes both.
    assert sae.encode_with_hidden_pre(x)[0].tolist() == [[3.0, 2.0], [0.0, 0.0]]
    acts, hidden_pre = encode_as_saved(sae, x)
    torch.testing.assert_close(acts, torch.tensor([[3.0, 2.0], [0.0, 0.6]]))
    torch.testing.assert_close(hidden_pre, x)
    found = soft_firing(acts, hidden_pre, torch.tensor([0, 1]), steepness=1.0, sae=sae)
    torch.testing.assert_close(found, torch.sigmoid(x - 0.5))

import pytest
import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.measures import RandomBaselineOptions, random_baseline
from sae_lens_contrastive.unlearning.measures.random_baseline import matched_features

# Even features fire about as often as their half says, in steps of 1/100; odd ones never do.
RATE = torch.tensor([i / 200 if i % 2 == 0 else 0.0 for i in range(200)])


def draw(features, seed=0, **options):
    return matched_features(RATE, features, RandomBaselineOptions(**options), seed)


def test_chosen_features_are_replaced_by_others_of_nearly_their_rate():
    chosen = (40, 100, 102, 104)
    draws = draw(chosen, n_draws=200, n_nearest=6)
    drawn = [set(each) for each in zip(*draws, strict=True)]
    assert drawn[0] == {34, 36, 38, 42, 44, 46}
    # Those beside it are chosen themselves; what a draw has taken already is replaced by the next.
    assert drawn[1] == {92, 94, 96, 98, 106, 108}
    assert drawn[2] <= {92, 94, 96, 98, 106, 108, 110, 112}
    assert all(len(set(each)) == 4 and not set(each) & set(chosen) for each in draws)


def test_features_that_never_fire_are_taken_last():
    # 2 fires least of all: every silent feature is nearer than most others.
    assert {each[0] for each in draw((2,), n_draws=200, n_nearest=5)} == {4, 6, 8, 10, 12}
    rate = torch.tensor([0.1, 0.1, 0.0, 0.0])
    assert sorted(matched_features(rate, (0, 1), RandomBaselineOptions(n_draws=1), 0)[0]) == [2, 3]


def test_draws_follow_the_seed():
    assert draw((40, 100)) == draw((40, 100))
    assert draw((40, 100)) != draw((40, 100), seed=1)


def test_accuracies_of_all_draws_are_summed_up():
    hits = [(4, 4), (2, 4), (3, 2), (0, 4)]
    asked = []

    def answer(sets):
        asked.extend(sets)
        return [(torch.arange(4) < forget, torch.arange(4) < retain) for forget, retain in hits]

    options = RandomBaselineOptions(n_draws=4)
    result = random_baseline(
        RATE, (40, 100), answer, options, forget_accuracy=0.5, chance=0.25, retain_gate=0.99, seed=3
    )
    assert asked == draw((40, 100), seed=3, n_draws=4)
    assert result.forget_accuracy == [1.0, 0.5, 0.75, 0.0]
    assert result.mean_forget_accuracy == 0.5625
    # 0, 2/3, 1/3 and, as nothing is below chance, 1.
    assert result.forgetting == pytest.approx(0.5)
    # The third draw breaks retained answers and scores 0, the others 0, 1/2 and 1.
    assert result.mean_score == pytest.approx((0 + 0.5 + 0 + 1) / 4)
    assert result.highest_retain_loss == 0.5
    # Two draws forget as much as the chosen features or more.
    assert result.p_value == 3 / 5


def test_too_few_other_features_are_refused():
    with pytest.raises(UserError, match="for 3 features needs as many others; the SAE has 2"):
        matched_features(torch.ones(5), (0, 1, 2), RandomBaselineOptions(), 0)

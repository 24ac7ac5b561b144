import pytest
import torch

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.unlearning.forgetting import bootstrap_ci95, forgetting, mean_chance
from sae_lens_contrastive.unlearning.output import SettingResult
from sae_lens_contrastive.unlearning.score import cause_of_zero, choose_setting, n_passing, unlearning_score


def setting(forget, retain, *, n_features=10, multiplier=20.0, threshold=0.01, n_selected=10):
    return SettingResult(
        selector="firing_rate",
        selector_options={"retain_threshold": threshold},
        n_features=n_features,
        intervention="clamp",
        intervention_options={"multiplier": multiplier},
        n_surviving=50,
        n_selected=n_selected,
        forget_accuracy=forget,
        retain_accuracy=retain,
    )


def question(entity, n_distractors=3):
    return Question.with_distractors(
        id=entity + str(n_distractors),
        domain="d",
        relation="r",
        entity=entity,
        stems=("s",),
        answer="a",
        distractors=tuple(f"x{i}" for i in range(n_distractors)),
        split="held_out",
    )


FRONTIER = [setting(1.0, 1.0), setting(0.6, 0.99), setting(0.1, 0.98), setting(0.7, 1.0)]


def chosen(frontier, chance=0.25):
    return choose_setting(frontier, 0.99, chance)


def test_score_is_the_deepest_forgetting_that_passes_the_gate():
    assert unlearning_score(FRONTIER, 0.99) == pytest.approx(0.4)
    assert unlearning_score(FRONTIER, 0.98) == pytest.approx(0.9)
    assert unlearning_score(FRONTIER, 1.0) == pytest.approx(0.3)


def test_score_is_saebenchs_on_the_questions_of_both_splits():
    # On `select` the second setting fails the gate, on all questions the first does.
    first = setting(0.2, 1.0).model_copy(update={"forget_accuracy_all": 0.1, "retain_accuracy_all": 0.98})
    second = setting(0.5, 0.9).model_copy(update={"forget_accuracy_all": 7 / 9, "retain_accuracy_all": 0.99})
    # SAEBench takes the mean of a vector of 32-bit numbers.
    assert unlearning_score([first, second], 0.99) == 1.0 - (torch.tensor([1.0] * 7 + [0.0] * 2).mean()).item()
    assert chosen([first, second]) == first
    assert n_passing([first, second], 0.99) == 1


def test_score_is_zero_if_no_setting_passes():
    assert unlearning_score([setting(0.1, 0.5)], 0.99) == 0.0
    assert unlearning_score([], 0.99) == 0.0


def test_chosen_setting_and_its_ties():
    assert chosen(FRONTIER) == FRONTIER[1]
    worse_retain = setting(0.5, 0.99, n_features=5)
    wide = setting(0.5, 1.0, n_features=20)
    best = setting(0.5, 1.0, n_features=10, multiplier=40.0)
    later = setting(0.5, 1.0, n_features=10, multiplier=80.0)
    assert chosen([worse_retain, wide, best, later]) == best


def test_no_setting_is_chosen_that_edits_nothing_or_fails_the_gate():
    assert chosen([setting(1.0, 1.0, n_selected=0), setting(0.2, 0.5)]) is None


def test_causes():
    assert cause_of_zero(FRONTIER, 0.99) is None
    assert cause_of_zero([setting(1.0, 1.0, n_selected=0)] * 2, 0.99) == "no_features"
    assert cause_of_zero([setting(1.0, 1.0), setting(1.0, 0.5)], 0.99) == "no_effect"
    assert cause_of_zero([setting(1.0, 1.0), setting(0.3, 0.5)], 0.99) == "retain_gate"


def test_forgetting_by_hand():
    assert forgetting(1.0, 0.25) == 0.0
    assert forgetting(0.625, 0.25) == pytest.approx(0.5)
    assert forgetting(0.25, 0.25) == 1.0
    assert forgetting(0.0, 0.25) == 1.0


def test_chance_is_the_mean_over_questions():
    assert mean_chance([question("a", 3), question("b", 1)]) == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_bootstrap_of_a_constant_is_the_constant():
    questions = [question(name) for name in "abcde"]
    assert bootstrap_ci95(questions, [True] * 5, n_resamples=100, seed=0) == (1.0, 1.0)
    assert bootstrap_ci95(questions, [False] * 5, n_resamples=100, seed=0) == (0.0, 0.0)


def test_bootstrap_resamples_entities_and_not_questions():
    # One entity: every resample holds all of its questions, so nothing varies.
    one = [question("a", n) for n in (1, 2, 3, 4)]
    assert bootstrap_ci95(one, [True, False, False, False], n_resamples=100, seed=0) == (0.25, 0.25)
    many = [question(name) for name in "abcd"]
    low, high = bootstrap_ci95(many, [True, False, False, False], n_resamples=1000, seed=0)
    assert low == 0.0
    assert 0.5 <= high <= 1.0


def test_bootstrap_repeats_with_its_seed():
    questions = [question(str(i)) for i in range(30)]
    right = [i % 3 == 0 for i in range(30)]
    first = bootstrap_ci95(questions, right, n_resamples=500, seed=7)
    assert first == bootstrap_ci95(questions, right, n_resamples=500, seed=7)
    assert first[0] < 1 / 3 < first[1]


def test_below_chance_nothing_more_is_forgotten():
    deeper, kinder, above = setting(0.1, 0.992), setting(0.24, 0.995), setting(0.26, 1.0)
    assert chosen([above, deeper, kinder]) == kinder
    assert chosen([above, deeper, kinder], chance=0.05) == deeper
    assert chosen([kinder, kinder.model_copy(update={"n_features": 5})]).n_features == 5

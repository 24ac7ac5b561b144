from dataclasses import dataclass, replace
from math import log

import pytest
import torch
from made_evidence import evidence

from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.options import build_options
from sae_lens_contrastive.selectors import (
    SELECTORS,
    ActivationRatio,
    Attribution,
    FiringRate,
    Importance,
    MutualInformation,
    Reserved,
    Selector,
    register_selector,
    selector_class,
)
from sae_lens_contrastive.selectors.mutual_information import information

NAMES = {
    "activation_ratio": ActivationRatio,
    "attribution": Attribution,
    "firing_rate": FiringRate,
    "importance": Importance,
    "mutual_information": MutualInformation,
    "reserved": Reserved,
}
PLAIN = evidence(
    {"n_fired": [90, 90, 90], "attribution": [-1.0, -1.0, -1.0]},
    {"n_fired": [0, 0, 0], "attribution": [0.0, 0.0, 0.0]},
    n_reserved=3,
)


def test_activation_ratio_keeps_a_percentile_and_sorts_by_strength():
    # Ratios 4, 10, 1, 2, 100; the last three are silent on forget text and have no say in the percentile.
    found = evidence(
        {"n_fired": [9, 9, 9, 9, 9, 0, 0, 0], "mean_square": [8.0, 1.0, 9.0, 6.0, 5.0, 0.0, 0.0, 0.0]},
        {"n_fired": [9] * 8, "mean_square": [2.0, 0.1, 9.0, 3.0, 0.05, 1.0, 1.0, 1.0]},
    )
    assert ActivationRatio(0)(found).tolist() == [2, 0, 3, 4, 1]
    assert ActivationRatio(50)(found).tolist() == [0, 4, 1]  # the median ratio, 4, is kept
    assert ActivationRatio(100)(found).tolist() == [4]


def test_activation_ratio_orders_features_that_are_silent_on_retain_text():
    found = evidence(
        {"n_fired": [9, 9, 9, 0], "mean_square": [1.0, 3.0, 50.0, 0.0]},
        {"n_fired": [0, 0, 9, 9], "mean_square": [0.0, 0.0, 1.0, 1.0]},
    )
    assert ActivationRatio(50)(found).tolist() == [1, 0]
    silent = evidence({"n_fired": [0, 0]}, {"n_fired": [5, 0]})
    assert ActivationRatio()(silent).tolist() == []


def test_reserved_features_are_those_that_training_set_aside():
    found = evidence({"n_fired": [5, 0, 9, 50]}, {"n_fired": [0, 0, 300, 0]}, n_reserved=3)
    assert Reserved()(found).tolist() == [2, 0]
    assert Reserved(0.3)(found).tolist() == [0]
    assert Reserved()(replace(found, reserved=torch.zeros(4, dtype=torch.bool))).tolist() == []


def test_mutual_information_of_a_perfect_and_of_an_idle_feature():
    found = evidence({"n_fired": [1000, 500, 0]}, {"n_fired": [0, 500, 1000]})
    assert information(found).tolist() == pytest.approx([log(2), 0.0, log(2)], abs=1e-6)
    # The third tells the corpora apart as well, but speaks of retain text; the second says nothing.
    assert MutualInformation(1.0)(found).tolist() == [0]


def test_mutual_information_weighs_corpora_of_different_size():
    found = evidence({"n_fired": [10, 30], "n_tokens": 100}, {"n_fired": [0, 10], "n_tokens": 300})
    # Table of feature 0 over 400 tokens: 10 and 90 of forget, 0 and 300 of retain text.
    cells = ((10, 100 * 10), (90, 100 * 390), (300, 300 * 390))
    assert information(found)[0].item() == pytest.approx(sum(n / 400 * log(n * 400 / m) for n, m in cells), abs=1e-6)
    assert MutualInformation(0.5)(found).tolist() == [1, 0]
    assert MutualInformation(0.03)(found).tolist() == [0]


def test_importance_is_a_weighted_sum_of_scaled_statistics():
    # Contrasts 4, 2, 0 (more on retain), maximum 4; |attribution| 1, 2, 5, maximum 5; feature 3 is over the threshold
    # and has no say in the maxima.
    found = evidence(
        {"n_fired": [100, 50, 10, 900], "mean": [5.0, 2.0, 1.0, 8.0], "attribution": [1.0, -2.0, 5.0, -99.0]},
        {"n_fired": [1, 0, 0, 500], "mean": [1.0, 0.0, 3.0, 0.0], "attribution": [0.0] * 4},
    )
    assert Importance(1.0, 0.0, 0.0)(found).tolist() == [0, 1, 2]
    assert Importance(0.0, 1.0, 0.0)(found).tolist() == [2, 1, 0]
    assert Importance(0.0, 0.0, 1.0)(found).tolist() == [0, 1, 2]
    # 0.5 * (1, 0.5, 0) + 0.5 * (0.2, 0.4, 1) = (0.6, 0.45, 0.5)
    assert Importance(0.5, 0.5, 0.0)(found).tolist() == [0, 2, 1]


def test_importance_gives_retain_features_no_information():
    found = evidence(
        {"n_fired": [100, 10], "attribution": [0.0, 0.1]}, {"n_fired": [500, 0], "attribution": [0.0, 0.0]}
    )
    assert information(found).argmax() == 0
    assert Importance(0.0, 0.0, 1.0, retain_threshold=1.0)(found).tolist() == [1, 0]


def test_weights_of_importance_sum_to_one():
    with pytest.raises(ConfigError, match=r"activation_weight 0.5, .* sum 1, it is 1.15"):
        Importance(activation_weight=0.5)
    with pytest.raises(ConfigError, match="each must be 0 or more"):
        Importance(1.5, -0.5, 0.0)


def test_attribution_ranks_by_what_forget_text_would_lose_more():
    # Without it the loss rises on forget text by 3, 5, -1, 2 and on retain text by 0, 4, -3, 2.
    found = evidence(
        {"n_fired": [9] * 4, "attribution": [-3.0, -5.0, 1.0, -2.0]},
        {"n_fired": [0] * 4, "attribution": [0.0, -4.0, 3.0, -2.0]},
    )
    assert Attribution()(found).tolist() == [0, 2, 1]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"activation_ratio"}))
def test_the_retain_threshold_drops_a_rate_at_it(name):
    found = replace(PLAIN, retain=replace(PLAIN.retain, n_fired=torch.tensor([0, 10, 9])))
    assert sorted(NAMES[name](retain_threshold=0.01)(found).tolist()) == [0, 2]
    with pytest.raises(ConfigError, match="retain_threshold is 0"):
        NAMES[name](retain_threshold=0)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_features_silent_on_forget_text_never_survive(name):
    silent = replace(
        PLAIN.forget, n_fired=torch.tensor([90, 0, 90]), mean_square=torch.tensor([1.0, 0.0, 1.0]).double()
    )
    assert sorted(NAMES[name]()(replace(PLAIN, forget=silent)).tolist()) == [0, 2]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"firing_rate"}))
def test_ties_go_by_index(name):
    n = 2000
    same = evidence(
        {"n_fired": [90] * n, "attribution": [-1.0] * n}, {"n_fired": [0] * n, "attribution": [0.0] * n}, n_reserved=n
    )
    assert NAMES[name]()(same).tolist() == list(range(n))


@pytest.mark.parametrize("name", ["attribution", "importance"])
def test_gradients_are_asked_for_where_they_are_missing(name):
    assert [other for other, each in sorted(NAMES.items()) if each.needs_gradients] == ["attribution", "importance"]
    sides = {name: replace(getattr(PLAIN, name), attribution=None) for name in ("forget", "retain")}
    without = replace(PLAIN, **sides)
    with pytest.raises(ConfigError, match=f"selector {name} needs attributions, .* gradients of the loss at the hook"):
        NAMES[name]()(without)


def test_a_percentile_is_between_0_and_100():
    with pytest.raises(ConfigError, match=r"ratio_percentile is 101.* Give one in \[0, 100\]"):
        ActivationRatio(101.0)


def test_selectors_are_registered_by_name():
    assert {name: selector_class(name) for name in NAMES} == NAMES
    with pytest.raises(UserError, match="Did you mean 'firing_rate'"):
        selector_class("fire_rate")
    built = build_options("selectors.importance", selector_class("importance"), {"retain_threshold": 1})
    assert built == Importance(retain_threshold=1.0)


def test_an_own_selector_takes_a_free_name(monkeypatch):
    monkeypatch.delitem(SELECTORS, "first", raising=False)

    @register_selector("first")
    @dataclass(frozen=True)
    class First(Selector):
        def __call__(self, evidence, /):
            return torch.tensor([0])

    assert selector_class("first")()(PLAIN).tolist() == [0]
    with pytest.raises(ValueError, match="'firing_rate' is already registered as FiringRate"):
        register_selector("firing_rate")(First)
    monkeypatch.delitem(SELECTORS, "first")

from dataclasses import dataclass

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.interventions import (
    INTERVENTIONS,
    Clamp,
    Gated,
    HotTokenClamp,
    Intervention,
    TokenTable,
    Zero,
    intervention_class,
    register_intervention,
)
from sae_lens_contrastive.options import build_options

ACTS = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.5]])
TOKENS = TokenTable(torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.bool))


def test_clamp_touches_only_what_fires():
    assert Clamp(4.0)(ACTS, TOKENS).tolist() == [[0.0, -4.0], [0.0, 0.0], [-4.0, -4.0]]


def test_zero_switches_off():
    assert Zero()(ACTS, TOKENS).tolist() == [[0.0, 0.0]] * 3


def test_hot_token_clamp_takes_all_features_of_a_token_where_one_fires():
    assert HotTokenClamp(4.0)(ACTS, TOKENS).tolist() == [[-4.0, -4.0], [0.0, 0.0], [-4.0, -4.0]]


@pytest.mark.parametrize("intervention", [Clamp(4.0), Zero(), HotTokenClamp(4.0)], ids=repr)
def test_what_needs_no_retain_text_stays_itself(intervention):
    assert not intervention.needs_retain_text
    assert intervention.fitted(ACTS, TOKENS) is intervention


@pytest.mark.parametrize("make", [Clamp, HotTokenClamp, Gated], ids=lambda make: make.__name__)
@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_a_multiplier_is_positive_and_finite(make, multiplier):
    with pytest.raises(UserError, match=r"multiplier is .* Give a positive number such as 20"):
        make(multiplier)


def test_interventions_are_registered_by_name():
    expected = {"clamp": Clamp, "zero": Zero, "hot_token_clamp": HotTokenClamp, "gated": Gated}
    assert {name: intervention_class(name) for name in expected} == expected
    with pytest.raises(UserError, match="Did you mean 'clamp'"):
        intervention_class("clam")


def test_options_of_a_specification_make_an_intervention():
    built = build_options("interventions.gated", intervention_class("gated"), {"multiplier": 50, "gate_percentile": 90})
    assert built == Gated(multiplier=50, gate_percentile=90)
    with pytest.raises(ConfigError, match="needs the key 'multiplier'"):
        build_options("interventions.clamp", intervention_class("clamp"), {})


def test_an_own_intervention_takes_a_free_name(monkeypatch):
    monkeypatch.delitem(INTERVENTIONS, "halve", raising=False)

    @register_intervention("halve")
    @dataclass(frozen=True)
    class Halve(Intervention):
        def __call__(self, acts, _tokens, /):
            return acts / 2

    assert intervention_class("halve")()(ACTS, TOKENS).tolist() == [[0.0, 1.0], [0.0, 0.0], [0.5, 0.25]]
    with pytest.raises(ValueError, match="'clamp' is already registered as Clamp"):
        register_intervention("clamp")(Halve)
    monkeypatch.delitem(INTERVENTIONS, "halve")

from pathlib import Path

import pytest
from made_searches import COEFFICIENT, SEARCHES, K

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.search import resolve_search


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_the_shipped_searches_are_valid(name):
    assert resolve_search(SEARCHES / f"{name}.yaml").space


BAD_SEARCHES = {
    "unknown key": ({"n_trial": 3}, ["Unknown key 'n_trial'", "Did you mean 'n_trials'?"]),
    "unknown key of a range": (
        {"space": {K: {"low": 1, "hihg": 2}}},
        ["search.yaml: space.sae.k: Unknown key 'hihg'", "Did you mean 'high'?"],
    ),
    "empty range": (
        {"space": {COEFFICIENT: {"low": 2, "high": 1}}},
        ["low is 2 and high is 1; low must be the smaller"],
    ),
    "range and choices": ({"space": {K: {"choices": [4], "low": 1}}}, ["space.sae.k: give low and high, or choices"]),
    "half a range": ({"space": {K: {"low": 1}}}, ["space.sae.k: give low and high", "Example: {low: 0.01"]),
    "log of zero": (
        {"space": {COEFFICIENT: {"low": 0, "high": 1, "log": True}}},
        ["low is 0; with log it must be above"],
    ),
    "no whole number": ({"space": {K: {"low": 1.5, "high": 4, "int": True}}}, ["with int both are whole numbers"]),
    "a choice twice": ({"space": {K: {"choices": [4, 4]}}}, ["choices [4, 4] repeat a value"]),
    "nothing varied": ({"space": {}}, ["space"]),
    "unknown run key": (
        {"space": {"training.lrr": {"low": 1, "high": 2}}},
        ["space.training.lrr = 1.0", "'training.lr'"],
    ),
    "unknown SAE key": ({"space": {"sae.kk": {"choices": [4]}}}, ["space.sae.kk = 4", "Unknown key in sae: 'kk'"]),
    "value out of range": (
        {"space": {"training.lr": {"low": -1, "high": 1}}},
        ["space.training.lr = -1.0", "greater than"],
    ),
    "value too large": ({"space": {K: {"choices": [4, 500]}}}, ["space.sae.k = 500: k is 500", "d_sae (128)"]),
    "fraction for a whole number": ({"space": {K: {"low": 4, "high": 8}}}, ["must be of type int", "add int: true"]),
    "fraction between whole numbers": ({"space": {"seed": {"low": 0, "high": 8}}}, ["seed", "add int: true"]),
    "another model": ({"space": {"model": {"choices": ["a"]}}}, ["space.model cannot be varied", "overrides"]),
    "missing target": ({"target": "gone.yaml"}, ["No file at gone.yaml"]),
    "population of one": ({"population_size": 1}, ["population_size", "greater than or equal to 2"]),
    "unknown override": ({"overrides": {"sed": 1}}, ["Unknown key 'sed'", "'seed'"]),
    "unknown override of the specification": ({"spec_overrides": {"sed": 1}}, ["Unknown key 'sed'", "'seed'"]),
}


@pytest.mark.parametrize(("changes", "messages"), BAD_SEARCHES.values(), ids=BAD_SEARCHES)
def test_a_bad_search_is_refused_before_anything_trains(search_file, no_model, capsys, changes, messages):
    assert main(["search", search_file(**changes), "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert [message for message in messages if message not in error] == []
    assert error.count("\n") == 1
    assert not Path("out").exists()

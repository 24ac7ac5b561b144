"""The file of an edit says all of it, and is believed only if it fits."""

import json

import pytest
import torch

from sae_lens_contrastive import UserError
from sae_lens_contrastive.forget_edit import load_forget_edit, save_forget_edit
from sae_lens_contrastive.forget_edit.edit import directions
from sae_lens_contrastive.interventions import Clamp, FittedGated, Gated


def test_an_edit_is_read_as_it_was_written(make_edit, tmp_path):
    edit = make_edit(intervention_options={"multiplier": 30.0, "hot_token": True, "least_share": 0.1})
    assert save_forget_edit(edit, tmp_path) == tmp_path / "forget_edit.json"
    assert load_forget_edit(tmp_path) == load_forget_edit(tmp_path / "forget_edit.json") == edit
    assert edit.built() == FittedGated(Gated(30.0, hot_token=True, least_share=0.1), 0.3)
    assert make_edit(intervention="clamp", gate_threshold=None).built() == Clamp(30.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": [1, 1]}, r"features must be distinct and below d_sae \(64\), got \[1, 1\]"),
        ({"features": [64]}, r"below d_sae"),
        ({"features": []}, r"features"),
        ({"directions": [[0.0] * 4]}, r"directions must hold 4 numbers for each of the 4 features"),
        ({"intervention": "clmap", "gate_threshold": None}, r"Unknown intervention 'clmap'. Did you mean 'clamp'"),
        ({"intervention_options": {"multiplier": -1}}, r"multiplier is -1"),
        ({"intervention_options": {"multiplier": 1, "gate": 2}}, r"'gate'"),
        ({"gate_threshold": None}, r"gate_threshold is None for 'gated': a gate has one, nothing else"),
        ({"intervention": "clamp"}, r"gate_threshold is 0.3 for 'clamp'"),
        ({"format_version": 2}, r"format_version"),
        ({"gate_threshold": 2.0}, r"gate_threshold"),
    ],
)
def test_what_fits_nothing_is_refused(make_edit, tmp_path, changes, message):
    path = tmp_path / "edit.json"
    path.write_text(json.dumps({**make_edit().model_dump(mode="json"), **changes}))
    with pytest.raises(UserError, match=message):
        load_forget_edit(path)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_what_is_no_edit_is_refused(tmp_path, content):
    (tmp_path / "forget_edit.json").write_text(content)
    with pytest.raises(UserError, match=r"forget_edit\.json"):
        load_forget_edit(tmp_path)


def test_another_sae_is_refused(make_edit, sae):
    make_edit().check_sae(sae)
    with torch.no_grad():
        sae.W_dec *= 3
        make_edit().check_sae(sae)
        sae.W_dec[7] = -sae.W_dec[7]
    with pytest.raises(UserError, match=r"for another SAE: feature 7 points elsewhere"):
        make_edit().check_sae(sae)
    with pytest.raises(UserError, match=r"for an SAE of 128 features, this one has 64"):
        make_edit(d_sae=128).check_sae(sae)


def test_a_feature_that_writes_nothing_is_recognised_as_such(make_edit, sae):
    with torch.no_grad():
        sae.W_dec[7] = 0
    edit = make_edit(features=[7, 3], directions=directions(sae, [7, 3]))
    assert edit.directions[0] == [0.0] * 4
    edit.check_sae(sae)

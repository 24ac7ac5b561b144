"""How much runs at a time is a matter of memory, not of results."""

import json
from pathlib import Path

import pytest

from sae_lens_contrastive.cli import main

EVAL = ["eval", "tiny.yaml", "--sae", "trained/plain/sae", "--set", "max_questions=30"]
EVAL += ["--set", "measures.random_baseline=null", "--set", "retain_gate=0.5"]


@pytest.mark.usefixtures("prepared")
def test_an_evaluation_answers_the_same_in_batches_of_any_size():
    results = {}
    for batch_tokens in (200, 5000):
        out = f"out{batch_tokens}"
        assert main([*EVAL, "--set", f"batch_tokens={batch_tokens}", "--out", out]) == 0
        (results[batch_tokens],) = json.loads(Path(out, "results.json").read_text())
    one = results[200]
    assert one["known"]["forget_select"][0] >= 2
    assert any(setting[f"{side}_accuracy"] < 1 for setting in one["frontier"] for side in ("forget", "retain"))
    for other in results.values():
        for key in ("known", "frontier", "features", "setting", "held_out", "cause_of_zero", "near_accuracy"):
            assert other[key] == one[key]
        ours, theirs = (each["measures"]["text_effects"]["forget"] for each in (one, other))
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)

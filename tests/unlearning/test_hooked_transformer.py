"""The evaluation on TransformerLens' own HookedTransformer gives what it gives on the bridge."""

import sys
import warnings
from pathlib import Path

import pytest
from evaluating import evaluate

from sae_lens_contrastive.unlearning.runners import PlainRunner, runner_for

EVALS = Path(__file__).parents[2] / "evals"


@pytest.fixture
def hooked(model_cache):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # TransformerLens announces that version 4 goes without it.
        warnings.simplefilter("ignore")
        patch.syspath_prepend(str(EVALS))
        from saebench_peer_cases import SUBJECTS
        from saebench_peer_models import load_subject

        yield load_subject(SUBJECTS["tiny-random-gemma-2"], "hooked_transformer", device="cpu", dtype="float32")
    for name in [name for name in sys.modules if name.startswith("saebench_")]:
        del sys.modules[name]


def test_every_answer_and_measure_is_the_same(tiny, hooked, make_spec, planted, under_test):
    wanted = {"text_effects": {}, "random_baseline": {}, "recall": {"max_new_tokens": 2}, "relearning": {"n_steps": 1}}
    spec = make_spec(measures=wanted)
    sae = under_test(planted)
    assert isinstance(runner_for(hooked, "blocks.19.hook_resid_post"), PlainRunner)
    on_bridge, on_hooked = (evaluate(spec, sae, model) for model in (tiny, hooked))
    assert on_bridge.held_out.forgetting > 0
    for field in ("unlearning_score", "held_out", "setting", "frontier", "known", "features", "cause_of_zero"):
        assert getattr(on_bridge, field) == getattr(on_hooked, field), field
    ours, theirs = (result.measures.model_dump() for result in (on_bridge, on_hooked))
    assert ours["recall"] == theirs["recall"]
    assert ours["random_baseline"] == theirs["random_baseline"]
    # Before training: the classes hold the same weights in other shapes, so that a step of AdamW differs.
    first = [measures["relearning"]["loss"][0] for measures in (ours, theirs)]
    assert first[0] == pytest.approx(first[1], abs=1e-4)
    for side in ("forget", "retain"):
        assert ours["text_effects"][side] == pytest.approx(theirs["text_effects"][side], abs=1e-4)

import pytest
import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.unlearning import UnlearningResult, check_spec
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.measures import WeightEdit
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.weight_edits import WeightCandidate, answer_with_weights, evaluate_weights

HOOK = "blocks.19.hook_resid_post"


@pytest.fixture
def candidates(tiny):
    """Weights left as they are, and weights that make every next token equally likely."""
    (name,) = (name for name, _ in tiny.named_parameters() if "embed_tokens" in name)
    weight = dict(tiny.named_parameters())[name]
    return [
        WeightCandidate({"scale": 1.0}, WeightEdit({name: weight.detach().clone()})),
        WeightCandidate({"scale": 0.0}, WeightEdit({name: torch.zeros_like(weight)})),
    ]


def test_settings_are_the_candidates_and_the_gate_chooses(tiny, make_spec, candidates, tmp_path):
    wanted = {"text_effects": {}, "random_baseline": {}, "recall": {}, "relearning": {"n_steps": 1}}
    spec = make_spec(measures=wanted)
    data = HookData(tiny, HOOK, spec, check_spec(spec))
    tried = answer_with_weights("made", candidates, data)
    result = evaluate_weights("made", tried, data, tmp_path, seed=3)
    same, broken = result.frontier
    assert (same.forget_accuracy, same.retain_accuracy) == (1, 1)
    # Of equal scores the first option counts, which is the right one of few questions.
    assert broken.retain_accuracy < 0.99
    assert result.setting == same
    assert result.cause_of_zero == "retain_gate"
    assert (result.held_out.forgetting, result.held_out.retain_accuracy) == (0, 1)
    assert result.measures.text_effects is not None
    assert result.measures.text_effects.forget.kl == pytest.approx(0, abs=1e-9)
    assert result.measures.recall is not None
    assert result.measures.recall.forget.before == result.measures.recall.forget.after
    assert result.measures.relearning is not None
    assert result.measures.relearning.accuracy[0] == 1
    # No features were chosen that others could be set beside.
    assert result.measures.random_baseline is None
    assert UnlearningResult.model_validate(read_json(tmp_path / "made.json")) == result


def test_another_gate_lets_another_candidate_pass(tiny, make_spec, candidates):
    spec = make_spec(measures={"text_effects": None, "random_baseline": None})
    data = HookData(tiny, HOOK, spec, check_spec(spec))
    tried = answer_with_weights("made", candidates, data)
    result = evaluate_weights("made-ungated", tried, data, None, retain_gate=0.0)
    assert result.name == result.variant == "made-ungated"
    assert result.setting == tried[1].result
    assert (result.retain_gate, result.n_settings_passing) == (0, 2)
    assert result.held_out.forget_accuracy < 1


def test_paraphrases_are_put_only_if_wanted(tiny, make_spec, candidates, monkeypatch):
    def never(_self):
        raise AssertionError("paraphrases were put")

    monkeypatch.setattr(QuestionEvaluator, "present_paraphrase_answers", never)
    spec = make_spec(measures={"text_effects": None, "random_baseline": None, "paraphrases": False})
    data = HookData(tiny, HOOK, spec, check_spec(spec))
    result = evaluate_weights("made", answer_with_weights("made", candidates, data), data, None)
    assert result.measures.paraphrases is None


def test_too_few_known_questions_are_refused(tiny, make_spec, candidates):
    spec = make_spec(min_known_questions=1000)
    with pytest.raises(UserError, match="too few questions"):
        answer_with_weights("made", candidates, HookData(tiny, HOOK, spec, check_spec(spec)))

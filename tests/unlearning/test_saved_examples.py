import math

import pytest
import torch
from evaluating import evaluate
from sae_lens import StandardSAE
from test_evaluate import FORGET_STEM, HOOK

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.interventions import Clamp, edit_residual, feature_acts
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.saved_examples import MAX_SNIPPETS, MAX_TOKENS, EvaluationExamples
from sae_lens_contrastive.unlearning.corpus import CorpusActivations, document_contexts
from sae_lens_contrastive.unlearning.examples import snippets, token_texts


def saved(spec, subject, tiny, out):
    result = evaluate(spec, subject, tiny, out)
    return result, EvaluationExamples.model_validate(read_json(out / "examples/one.json"))


def option_probabilities(model, question, residual_edit):
    """By an ordinary hook on the whole model; options are one token each."""
    tokens = torch.tensor([[model.tokenizer.bos_token_id, *encode_text(model.tokenizer, question.stem)]])
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, residual_edit)])[0, -1]
    weights = [math.exp(logits[encode_text(model.tokenizer, option)[0]]) for option in question.options]
    return [weight / sum(weights) for weight in weights]


def test_the_planted_feature_is_shown_where_it_fires_with_what_it_does(tiny, make_spec, planted, under_test, tmp_path):
    result, examples = saved(make_spec(), under_test(planted), tiny, tmp_path / "out")
    assert (examples.variant, examples.seed, examples.forget_domain) == ("planted", 3, "cities")
    assert examples.features_from == "edit"
    (feature,) = examples.features
    # Each text of the forget corpus is "Q..", and the feature fires on the stem alone, 1 less its bias of 0.5.
    assert feature.feature == 0
    assert (feature.forget_rate, feature.retain_rate) == (pytest.approx(1 / 3), 0.0)
    assert [snippet.corpus for snippet in feature.snippets] == ["forget"] * MAX_SNIPPETS["forget"]
    for snippet in feature.snippets:
        assert snippet.tokens == [FORGET_STEM, ".", "."]
        assert snippet.activations == pytest.approx([0.5, 0, 0], abs=1e-3)
    multiplier = result.setting.intervention_options["multiplier"]

    def edit(residual, hook):
        return edit_residual(planted, residual, [0], Clamp(multiplier), torch.tensor([[False, True]]))

    assert [question.side for question in examples.questions] == ["forget"] * 4 + ["retain"] * 2
    for question in examples.questions[:4]:
        assert question.stem == FORGET_STEM
        assert question.before == pytest.approx(option_probabilities(tiny, question, lambda r, hook: r), abs=1e-4)
        assert question.after == pytest.approx(option_probabilities(tiny, question, edit), abs=1e-4)
        assert question.before.index(max(question.before)) == question.answer_index
    assert any(question.after.index(max(question.after)) != question.answer_index for question in examples.questions)
    assert all(question.after == question.before for question in examples.questions[4:])


def test_examples_change_no_number(tiny, spec, planted, under_test, tmp_path):
    with_examples = evaluate(spec, under_test(planted), tiny, tmp_path / "out")
    without = evaluate(spec, under_test(planted), tiny)
    assert with_examples.model_copy(update={"seconds": 0.0}) == without.model_copy(update={"seconds": 0.0})
    assert not (tmp_path / "examples").exists()


def test_without_a_chosen_edit_the_features_are_those_that_fire_more_on_forget_text(
    tiny, make_spec, files, planted, under_test, tmp_path
):
    (files / "mixed.txt").write_text(f"{FORGET_STEM}{'.' * 9}")
    spec = make_spec(retain_corpora=[str(files / "mixed.txt")], selectors={"firing_rate": {"retain_threshold": 0.01}})
    result, examples = saved(spec, under_test(planted), tiny, tmp_path / "out")
    assert (result.cause_of_zero, result.setting) == ("no_features", None)
    assert examples.features_from == "rates"
    assert examples.questions == []
    (feature,) = examples.features
    assert (feature.feature, feature.forget_rate, feature.retain_rate) == (0, pytest.approx(1 / 3), pytest.approx(0.1))
    assert [snippet.corpus for snippet in feature.snippets] == ["forget"] * MAX_SNIPPETS["forget"] + ["retain"]


def test_what_is_saved_is_bounded(tiny, planted):
    long = " ".join(["Q"] * 50)
    contexts = document_contexts(tiny.tokenizer, [long] * 5, 200, 10_000)
    residuals = torch.cat([residual_at_hook(tiny, HOOK, torch.tensor([tokens]))[0, 1:] for tokens in contexts.tokens])
    (found,) = snippets(planted, [0], CorpusActivations(contexts, residuals), tiny.tokenizer, "retain")
    assert len(found) == MAX_SNIPPETS["retain"]
    acts = feature_acts(planted, residuals, [0])
    for snippet in found:
        assert len(snippet.tokens) <= MAX_TOKENS
        assert max(snippet.activations) == pytest.approx(acts.max().item(), rel=1e-3)
    assert snippets(planted, [], CorpusActivations(contexts, residuals), tiny.tokenizer, "retain") == []


def test_a_feature_that_never_fires_has_no_snippet(tiny, planted):
    assert isinstance(planted, StandardSAE)
    contexts = document_contexts(tiny.tokenizer, ["ab"], 8, 100)
    residuals = residual_at_hook(tiny, HOOK, torch.tensor(contexts.tokens))[0, 1:]
    assert snippets(planted, [5], CorpusActivations(contexts, residuals), tiny.tokenizer, "forget") == [[]]


def test_tokens_of_one_character_give_it_once(tiny):
    tokens = encode_text(tiny.tokenizer, "aé b")
    texts = token_texts(tiny.tokenizer, tokens)
    assert len(texts) == len(tokens)
    assert "".join(texts) == "aé b"

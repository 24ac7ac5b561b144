import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from evaluating import evaluate

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import Clamp, register_intervention
from sae_lens_contrastive.interventions.base import INTERVENTIONS
from sae_lens_contrastive.unlearning import UnlearningResult, evaluate_saes
from sae_lens_contrastive.unlearning import evaluate as evaluate_module
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.measures import RecallOptions


def test_results_are_saved_and_used_again(tiny, spec, planted, under_test, tmp_path, monkeypatch):
    subject, out = under_test(planted), tmp_path / "out"
    first = evaluate(spec, subject, tiny, out)
    rows = json.loads((out / "results.json").read_text())
    assert [UnlearningResult.model_validate(row) for row in rows] == [first]
    keys = ["variant", "seed", "forget_domain", "unlearning_score", "held_out", "cause_of_zero", "seconds"]
    assert [key for key in rows[0] if key in keys] == keys
    assert list(rows[0]["held_out"]) == ["forget_accuracy", "chance", "forgetting", "retain_accuracy", "ci95"]

    def never(*_args, **_kwargs):
        raise AssertionError("questions were put")

    with monkeypatch.context() as patched:
        patched.setattr(evaluate_module, "HookData", never)
        assert evaluate(spec, subject, tiny, out) == first
    with torch.no_grad():
        planted.W_dec[0].zero_()
    changed = evaluate(spec, under_test(planted), tiny, out)
    assert changed.cause_of_zero == "no_effect"
    assert changed.provenance.sae_sha256 != first.provenance.sae_sha256


def test_another_model_uses_no_saved_result(tiny, spec, planted, under_test, tmp_path, monkeypatch):
    subject, out = under_test(planted), tmp_path / "out"
    first = evaluate(spec, subject, tiny, out)
    monkeypatch.setattr(evaluate_module, "model_digest", lambda _model: "another")
    answered = counted_edits(monkeypatch)
    assert evaluate(spec, subject, tiny, out).provenance != first.provenance
    assert answered


def test_results_of_saes_that_were_evaluated_before_stay(tiny, make_spec, spec, planted, under_test, tmp_path):
    subject, out = under_test(planted), tmp_path / "out"

    def rows(spec, name):
        evaluate_saes(spec, {name: subject}, out, tiny)
        return [row["name"] for row in json.loads((out / "results.json").read_text())]

    assert rows(spec, "one") == ["one"]
    assert rows(spec, "two") == ["one", "two"]
    assert rows(spec, "one") == ["one", "two"]
    # Other questions: their numbers do not stand beside these.
    assert rows(make_spec(max_questions=6), "two") == ["two"]


def test_an_edit_that_is_chosen_no_more_is_taken_away(tiny, spec, planted, under_test, tmp_path):
    edit = tmp_path / "out/forget_edits/one.json"
    evaluate(spec, under_test(planted), tiny, tmp_path / "out")
    assert edit.is_file()
    with torch.no_grad():
        planted.W_enc.zero_()
    evaluate(spec, under_test(planted), tiny, tmp_path / "out")
    assert not edit.exists()


@pytest.fixture
def fitted_clamp():
    @register_intervention("fitted_clamp")
    @dataclass(frozen=True)
    class FittedClamp(Clamp):
        needs_retain_text: ClassVar[bool] = True
        threshold: float = 0.5

        def fitted(self, acts, tokens):
            return self

    yield "fitted_clamp"
    del INTERVENTIONS["fitted_clamp"]


def test_an_intervention_fitted_on_retain_text_is_evaluated_without_a_forget_edit(
    tiny, make_spec, planted, under_test, tmp_path, fitted_clamp
):
    spec = make_spec(interventions={fitted_clamp: {"multiplier": [400.0]}})
    result = evaluate(spec, under_test(planted), tiny, tmp_path / "out")
    assert result.held_out.forgetting > 0
    # An option called so is no gate's.
    assert result.gate_threshold is None
    assert not list((tmp_path / "out").glob("forget_edits/*"))


def test_a_killed_evaluation_goes_on_where_it_stopped(tiny, spec, planted, under_test, tmp_path, monkeypatch):
    subject = under_test(planted)
    whole = evaluate(spec, subject, tiny)
    monkeypatch.setattr("sae_lens_contrastive.unlearning.sweep._EDITS_AT_ONCE", 1)
    with monkeypatch.context() as patched:
        answered = counted_edits(patched, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            evaluate(spec, subject, tiny, tmp_path / "out")
    # Four evaluators answer each edit: the first edit is done, the second was cut short.
    assert len(answered) == 5
    rest = counted_edits(monkeypatch)
    resumed = evaluate(spec, subject, tiny, tmp_path / "out")
    comparable = {"seconds", "provenance"}
    assert resumed.model_dump(exclude=comparable) == whole.model_dump(exclude=comparable)
    # Both thresholds let feature 0 through alone: 2 edits, 1 to go, and the chosen one on near questions.
    assert len(rest) == 4 + 1


def test_saved_answers_to_other_known_questions_are_not_read(tiny, spec, planted, under_test, tmp_path, monkeypatch):
    subject, out = under_test(planted), tmp_path / "out"
    evaluate(spec, subject, tiny, out)
    (out / "one.json").unlink()
    original = QuestionEvaluator._unedited

    def without_the_first(*args):
        found = original(*args)
        return {**found, "known": found["known"][1:]}

    monkeypatch.setattr(QuestionEvaluator, "_unedited", without_the_first)
    fewer = evaluate(spec, subject, tiny)
    answered = counted_edits(monkeypatch)
    again = evaluate(spec, subject, tiny, out)
    assert again.model_dump(exclude={"seconds"}) == fewer.model_dump(exclude={"seconds"})
    # Two edits by four evaluators, and the chosen one on near questions.
    assert len(answered) == 2 * 4 + 1


def test_an_output_folder_that_is_a_file_is_refused_before_the_model_loads(
    spec, planted, under_test, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate_module, "load_model", None)
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match=r"out is a file\. Give a folder with --out"):
        evaluate_saes(spec, {"one": under_test(planted)}, tmp_path / "out")


def counted_edits(patched, stop_after=None):
    """Edits that evaluators are asked for, one entry for each evaluator; Ctrl-C after some."""
    asked = []
    original = QuestionEvaluator.answers

    def answers(self, sae, edits, progress=None):
        if len(asked) == stop_after:
            raise KeyboardInterrupt
        asked.extend(edits)
        return original(self, sae, edits, progress)

    patched.setattr(QuestionEvaluator, "answers", answers)
    return asked


def test_an_unreadable_result_is_computed_anew(tiny, spec, planted, under_test, tmp_path):
    out = tmp_path / "out"
    first = evaluate(spec, under_test(planted), tiny, out)
    (out / "one.json").write_text('{"name"')
    again = evaluate(spec, under_test(planted), tiny, out)
    assert again.model_dump(exclude={"seconds"}) == first.model_dump(exclude={"seconds"})


def test_saes_of_one_hook_share_what_does_not_depend_on_them(tiny, spec, planted, under_test, monkeypatch):
    built = []
    original = evaluate_module.HookData
    monkeypatch.setattr(evaluate_module, "HookData", lambda *args: built.append(args) or original(*args))
    first = under_test(planted, "first")
    with torch.no_grad():
        planted.W_dec[0].zero_()
    second = under_test(planted, "second", variant="other")
    results = evaluate_saes(spec, {"b": first, "a": second}, None, model=tiny)
    assert [(r.name, r.variant, r.cause_of_zero) for r in results] == [
        ("b", "planted", None),
        ("a", "other", "no_effect"),
    ]
    assert len(built) == 1


def test_what_depends_on_no_sae_is_kept_for_other_evaluations(tiny, spec, planted, under_test, tmp_path, monkeypatch):
    subject, cache = under_test(planted), tmp_path / "cache"
    measures = spec.measures.model_copy(update={"recall": RecallOptions(max_new_tokens=2)})
    spec = spec.model_copy(update={"selectors": {**spec.selectors, "attribution": {}}, "measures": measures})
    alone = evaluate(spec, subject, tiny)
    first = evaluate_saes(spec, {"one": subject}, None, tiny, cache=cache)
    kinds = {path.name.rpartition("-")[0] for path in cache.glob("*.safetensors")}
    sides = [f"{side}_{split}" for side in ("forget", "retain") for split in ("select", "held_out")]
    texts = [f"{what}_{side}_corpus" for what in ("residuals", "gradients") for side in ("forget", "retain")]
    assert kinds >= {*(f"answers_{side}" for side in sides), *texts, "recall_forget", "recall_retain"}

    def never(*_args, **_kwargs):
        raise AssertionError("the unedited model ran again")

    with monkeypatch.context() as patched:
        for place in ("answers.read_prompts", "shared.corpus_residuals", "shared.corpus_gradients"):
            patched.setattr(f"sae_lens_contrastive.unlearning.{place}", never)
        # Other settings, another evaluation of the same questions and texts.
        other = spec.model_copy(update={"n_features": [1], "edit_special_tokens": True})
        evaluate_saes(other, {"one": subject}, None, tiny, cache=cache)
        again = evaluate_saes(spec, {"one": subject}, None, tiny, cache=cache)
    for result in (*first, *again):
        assert result.model_dump(exclude={"seconds"}) == alone.model_dump(exclude={"seconds"})


def test_another_model_uses_nothing_of_a_cache(tiny, spec, planted, under_test, tmp_path, monkeypatch):
    subject, cache = under_test(planted), tmp_path / "cache"
    evaluate_saes(spec, {"one": subject}, None, tiny, cache=cache)
    before = set(cache.glob("*.safetensors"))
    monkeypatch.setattr("sae_lens_contrastive.unlearning.unedited_cache.model_digest", lambda _model: "another")
    evaluate_saes(spec, {"one": subject}, None, tiny, cache=cache)
    after = set(cache.glob("*.safetensors"))
    assert len(after) == 2 * len(before) > 0

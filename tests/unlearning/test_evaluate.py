import json
from string import ascii_lowercase

import pytest
import torch
from evaluating import evaluate

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.interventions import Clamp, edit_residual

HOOK = "blocks.19.hook_resid_post"
FORGET_STEM, RETAIN_STEM = "Q", "Z"


def plain_accuracy(model, sae, questions, stem, feature, multiplier):
    """Accuracy under a clamp, by an ordinary hook on the whole model; the known stem is one token after BOS."""
    tokens = torch.tensor([[model.tokenizer.bos_token_id, *encode_text(model.tokenizer, stem)]])
    editable = torch.tensor([[False, True]])

    def hook(residual, hook):
        return edit_residual(sae, residual, [feature], Clamp(multiplier), editable)

    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, hook)])[0, -1]
    right = 0
    for question in questions:
        scores = [logits[encode_text(model.tokenizer, option)[0]].item() for option in question.options]
        right += scores.index(max(scores)) == question.answer_index
    return right / len(questions)


def test_planted_knowledge_is_forgotten_and_scored(tiny, spec, planted, under_test, forget_questions):
    result = evaluate(spec, under_test(planted), tiny)
    select, held_out = ([q for q in forget_questions if q.split == split] for split in ("select", "held_out"))
    expected = {m: plain_accuracy(tiny, planted, select, FORGET_STEM, 0, m) for m in (1.0, 400.0)}
    assert min(expected.values()) < 0.7
    everywhere = {m: plain_accuracy(tiny, planted, forget_questions, FORGET_STEM, 0, m) for m in (1.0, 400.0)}
    assert result.unlearning_score == pytest.approx(1 - min(everywhere.values()))
    assert min(s.forget_accuracy for s in result.frontier) == min(expected.values())
    assert result.cause_of_zero is None
    assert result.features == [0]
    assert result.setting is not None
    assert result.setting.n_features == 1
    assert result.setting.retain_accuracy == 1.0
    chosen = result.setting.intervention_options["multiplier"]
    accuracy = plain_accuracy(tiny, planted, held_out, FORGET_STEM, 0, chosen)
    assert result.held_out.forget_accuracy == pytest.approx(accuracy)
    assert result.held_out.chance == 0.25
    assert result.held_out.forgetting == pytest.approx(min(1, (1 - accuracy) / 0.75))
    assert result.held_out.retain_accuracy == 1.0
    assert result.retain_accuracy_by_domain == {"metals": 1.0, "plants": 1.0}
    low, high = result.held_out.ci95
    assert low <= accuracy <= high
    assert result.below_chance == (accuracy < 0.25)
    assert result.known.forget_select == (8, 8)
    assert {s.n_surviving for s in result.frontier} == {1}
    assert len(result.frontier) == 8


def test_knowledge_along_one_direction_is_forgotten_completely(tiny, make_spec, planted_knowledge, under_test):
    spec = make_spec(interventions={"clamp": {"multiplier": 3000.0}}, measures={"random_baseline": {"n_draws": 10}})
    result = evaluate(spec, under_test(planted_knowledge), tiny)
    assert result.features == [0]
    assert result.held_out.forgetting == 1.0
    assert result.below_chance
    assert result.unlearning_score > 0.75
    assert result.held_out.retain_accuracy == 1.0
    # Other features, none of which fires on the stem, forget nothing.
    assert result.measures.random_baseline.forgetting == 0.0
    assert result.measures.random_baseline.p_value == pytest.approx(1 / 11)


def test_random_features_that_fire_as_often_forget_about_nothing(tiny, make_spec, planted_knowledge, under_test):
    # Features 2 to 7 fire on the forget stem just as feature 0 does, more weakly, and write where no option is read.
    tokens = [encode_text(tiny.tokenizer, letter)[0] for letter in ascii_lowercase]
    unembed = tiny.original_model.get_output_embeddings().weight[tokens]
    with torch.no_grad():
        planted_knowledge.W_enc[:, 2:] = planted_knowledge.W_enc[:, :1] / 2
        planted_knowledge.b_enc[2:] /= 2
        planted_knowledge.W_dec[2:] = torch.linalg.svd(unembed).Vh[len(tokens) :]
    spec = make_spec(
        selectors={"activation_ratio": {"ratio_percentile": 0.0}},
        n_features=[1],
        interventions={"clamp": {"multiplier": 100.0}},
        measures={"random_baseline": {"n_draws": 12, "n_nearest": 6}, "text_effects": {"max_tokens": 20}},
    )
    result = evaluate(spec, under_test(planted_knowledge), tiny)
    assert result.features == [0]
    assert result.held_out.forgetting == 1.0
    assert abs(result.measures.random_baseline.forgetting) < 0.1
    assert result.measures.random_baseline.p_value == pytest.approx(1 / 13)
    assert result.measures.text_effects.forget.kl > 0
    assert result.measures.text_effects.retain.kl == 0


def test_selectors_and_interventions_are_combined(tiny, planted, under_test, make_spec):
    spec = make_spec(
        selectors={"firing_rate": {"retain_threshold": [0.01, 0.5]}, "mutual_information": {}},
        interventions={"zero": {}, "gated": {"multiplier": [5, 400.0], "gate_percentile": 90}},
    )
    result = evaluate(spec, under_test(planted), tiny)
    combinations = {
        (s.selector, *s.selector_options.values(), s.n_features, s.intervention, *s.intervention_options.values())
        for s in result.frontier
    }
    assert len(combinations) == len(result.frontier) == 3 * 2 * 3
    assert ("mutual_information", 1, "gated", 400.0, 90) in combinations
    # The stem is all that is asked, so the gate opens on every forget question and on no other.
    by_gate = {s.forget_accuracy for s in result.frontier if s.intervention_options.get("multiplier") == 400.0}
    clamped = evaluate(make_spec(), under_test(planted), tiny)
    assert by_gate == {s.forget_accuracy for s in clamped.frontier if s.intervention_options["multiplier"] == 400.0}


def test_no_features(tiny, spec, planted, under_test):
    with torch.no_grad():
        planted.b_enc.fill_(-5.0)
    result = evaluate(spec, under_test(planted), tiny)
    assert result.cause_of_zero == "no_features"
    assert result.unlearning_score == 0.0
    assert result.setting is None
    assert (result.held_out.forget_accuracy, result.held_out.forgetting) == (1.0, 0.0)
    assert result.held_out.ci95 == (1.0, 1.0)


def test_no_effect(tiny, spec, planted, under_test):
    with torch.no_grad():
        planted.W_dec[0].zero_()
    result = evaluate(spec, under_test(planted), tiny)
    assert result.cause_of_zero == "no_effect"
    assert result.unlearning_score == 0.0
    assert result.held_out.forget_accuracy == 1.0


def test_retain_gate(tiny, files, planted, under_test, retain_questions, make_spec):
    # Text of the forget domain also has the retain stem, and feature 0 has no effect: only feature 1 moves answers.
    (files / "mixed.txt").write_text(f"{FORGET_STEM}..\n\n{FORGET_STEM}..\n\n{RETAIN_STEM}..")
    with torch.no_grad():
        planted.W_dec[0].copy_(planted.W_dec[1])
    spec = make_spec(
        forget_corpora=[str(files / "mixed.txt")],
        selectors={"firing_rate": {"retain_threshold": 0.5}},
        n_features=[2],
        interventions={"clamp": {"multiplier": 400.0}},
    )
    result = evaluate(spec, under_test(planted), tiny)
    assert result.frontier[0].retain_accuracy < 0.99
    assert result.frontier[0].forget_accuracy < 1
    assert result.cause_of_zero == "retain_gate"
    assert result.unlearning_score == 0.0
    assert result.setting is None
    assert result.held_out.retain_accuracy == 1.0


def test_unknown_questions_stop_early(tiny, planted, under_test, monkeypatch, make_spec):
    def never(*_args, **_kwargs):
        raise AssertionError("the corpora were read")

    monkeypatch.setattr("sae_lens_contrastive.unlearning.shared.corpus_residuals", never)
    result = evaluate(make_spec(min_known_questions=9), under_test(planted), tiny)
    assert result.cause_of_zero == "unknown_questions"
    assert result.unlearning_score == 0.0
    assert result.frontier == []
    assert result.known.retain_select == (9, 9)
    assert result.known.forget_select == (8, 8)


def test_text_about_held_out_entities_is_not_read(tiny, files, planted, under_test, make_spec):
    # Every forget document but one names a held-out entity; that one lacks the stem.
    documents = [
        {"id": "a", "domain": "cities", "entities": ["cities0"], "text": f"{FORGET_STEM}.."},
        {"id": "b", "domain": "cities", "entities": ["cities1"], "text": "..."},
    ]
    path = files / "named.jsonl"
    path.write_text("\n".join(json.dumps(document) for document in documents))
    result = evaluate(make_spec(forget_corpora=[str(path)]), under_test(planted), tiny)
    assert result.cause_of_zero == "no_features"


def test_near_questions_are_reported_and_have_no_say(tiny, make_spec, spec, planted, under_test, files, tmp_path):
    near = tmp_path / "near.jsonl"
    records = [json.loads(line) for line in (files / "forget.jsonl").read_text().splitlines()]
    near.write_text("".join(json.dumps({**r, "id": f"near/{r['id']}", "domain": "near"}) + "\n" for r in records))
    plain = evaluate(spec, under_test(planted, name="plain"), tiny)
    beside = evaluate(make_spec(near_questions=[str(near)]), under_test(planted, name="beside"), tiny)
    assert plain.near_accuracy is None
    assert plain.near_accuracy_by_domain == {}
    # The near questions are the forget questions under another name: they fall alike, and nothing else changes.
    assert beside.near_accuracy == plain.held_out.forget_accuracy
    assert beside.near_accuracy_by_domain == {"near": plain.held_out.forget_accuracy}
    assert beside.known.near == plain.known.forget_held_out
    assert (beside.setting, beside.held_out) == (plain.setting, plain.held_out)

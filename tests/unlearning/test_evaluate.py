import json

import pytest
import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import Clamp, edit_residual
from sae_lens_contrastive.unlearning import UnlearningResult, evaluate_saes
from sae_lens_contrastive.unlearning import evaluate as evaluate_module
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.batching import encode_text
from sae_lens_contrastive.unlearning.subject import SaeUnderTest

HOOK = "blocks.19.hook_resid_post"
FORGET_STEM, RETAIN_STEM = "Q", "Z"


@pytest.fixture
def under_test(tmp_path):
    def save(sae, name="sae", **facts):
        folder = tmp_path / name
        sae.save_model(folder)
        return SaeUnderTest(**{"variant": "planted", "seed": 3, "path": folder, **facts})

    return save


def evaluate(spec, subject, tiny, out=None):
    (result,) = evaluate_saes(spec, {"one": subject}, out, model=tiny)
    return result


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

    monkeypatch.setattr("sae_lens_contrastive.unlearning.shared.corpus_activations", never)
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
    # Both thresholds let feature 0 through alone: 2 edits, 1 to go, and the chosen one on the held-out questions.
    assert len(rest) == 4 + 3


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


def test_names_that_are_no_file_names_are_refused(spec, under_test, planted):
    for name in ("../x", "a/b", "", "results"):
        with pytest.raises(UserError, match="cannot name an SAE"):
            evaluate_saes(spec, {name: under_test(planted)}, None)
    with pytest.raises(UserError, match="no SAE to evaluate"):
        evaluate_saes(spec, {}, None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda sae, folder: (folder / "cfg.json").unlink(), "no cfg.json"),
        (lambda sae, folder: (folder / "cfg.json").write_text("{"), "not a loadable SAE"),
        (lambda sae, folder: (folder / "sae_weights.safetensors").write_bytes(b"x" * 40), "not a loadable SAE"),
        (lambda sae, folder: (folder / "sae_weights.safetensors").unlink(), "not a loadable SAE"),
        (lambda sae, folder: _resave(sae, folder, nan=True), "W_dec has values that are not finite"),
        (lambda sae, folder: _resave(sae, folder, hook_name=None), "names no hook"),
        (lambda sae, folder: _resave(sae, folder, normalize="layer_norm"), "normalize_activations 'layer_norm'"),
    ],
)
def test_unusable_saes_are_refused_before_the_model_loads(spec, planted, under_test, monkeypatch, spoil, message):
    monkeypatch.setattr(evaluate_module, "load_model", None)
    subject = under_test(planted)
    spoil(planted, subject.path)
    with pytest.raises(UserError, match=f"SAE 'one'.*{message}"):
        evaluate_saes(spec, {"one": subject}, None)


def _resave(sae, folder, *, nan=False, hook_name=HOOK, normalize="none"):
    if nan:
        with torch.no_grad():
            sae.W_dec[3, 1] = float("nan")
    sae.cfg.metadata.hook_name = hook_name
    sae.cfg.normalize_activations = normalize
    sae.save_model(folder)


def test_an_sae_of_another_hook_or_width_is_refused(tiny, spec, planted, under_test):
    planted.cfg.metadata.hook_name = "blocks.40.hook_resid_post"
    with pytest.raises(UserError, match="layers 0 to 25"):
        evaluate(spec, under_test(planted), tiny)


def test_a_subject_has_one_place():
    with pytest.raises(ValueError, match="either path, or release"):
        SaeUnderTest(variant="v", release="only")


def test_an_unknown_release_is_a_user_error(spec):
    subject = SaeUnderTest(variant="v", release="no-such-release", sae_id="x")
    with pytest.raises(UserError, match=r"'no-such-release'.*could not be loaded"):
        evaluate_saes(spec, {"one": subject}, None)


def test_near_questions_are_reported_and_have_no_say(tiny, make_spec, spec, planted, under_test, files, tmp_path):
    near = tmp_path / "near.jsonl"
    records = [json.loads(line) for line in (files / "forget.jsonl").read_text().splitlines()]
    near.write_text("".join(json.dumps({**r, "id": f"near/{r['id']}", "domain": "near"}) + "\n" for r in records))
    plain = evaluate(spec, under_test(planted, name="plain"), tiny)
    beside = evaluate(make_spec(near_questions=[str(near)]), under_test(planted, name="beside"), tiny)
    assert plain.near_accuracy_by_domain == {}
    # The near questions are the forget questions under another name: they fall alike, and nothing else changes.
    assert beside.near_accuracy_by_domain == {"near": plain.held_out.forget_accuracy}
    assert (beside.setting, beside.held_out) == (plain.setting, plain.held_out)

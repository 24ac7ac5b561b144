import json
from dataclasses import replace

import pytest

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.models import model_shape
from sae_lens_contrastive.unlearning.plan import estimate_memory, plan_evaluation
from sae_lens_contrastive.unlearning.spec import check_spec

GIB = 2**30


def test_a_thousand_questions_of_gemma_fit_in_the_memory_of_a_host(make_spec, forget_questions):
    spec = make_spec(model="gemma-2-2b", dtype="bfloat16", max_corpus_tokens=1_000_000, cache_gib=16.0)
    # A question of WMDP or MMLU with its options is about 700 characters long.
    question = replace(forget_questions[0], stems=("x" * 400,), options=tuple("abcd"[i] * 75 for i in range(4)))
    memory = estimate_memory(spec, model_shape(spec.model), {"forget": [question] * 1000})
    n_tokens = 1000 * (len("{stem}") + 400 + 300) / 3.5
    assert memory.questions == pytest.approx(n_tokens * 2304 * 2)
    assert memory.corpora == 2 * 1_000_000 * 2304 * 2
    assert memory.in_files == 0
    assert memory.host < 16 * GIB < 24 * GIB
    assert memory.weights == pytest.approx(2.6e9 * 2, rel=0.02)


def test_what_exceeds_the_budget_lies_in_files(make_spec):
    spec = make_spec(model="gemma-2-2b", dtype="bfloat16", max_corpus_tokens=1_000_000, cache_gib=1.0)
    memory = estimate_memory(spec, model_shape(spec.model), {})
    assert memory.host == 1.0 * GIB
    assert memory.in_files == memory.corpora - GIB


def test_gradients_double_what_is_kept_of_the_corpora(make_spec):
    shape = model_shape("gemma-2-2b")
    plain, with_gradients = (
        estimate_memory(make_spec(selectors={name: {}}), shape, {}).corpora for name in ("firing_rate", "attribution")
    )
    assert with_gradients == 2 * plain


def test_the_plan_says_what_is_put_and_needs_no_model(spec, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sae_lens_contrastive.unlearning.evaluate.load_model", None)
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(spec.model_dump(mode="json")))
    assert main(["eval", str(path), "--set", "device=cuda:7", "--dry-run"]) == 0
    assert "on cuda:7" in capsys.readouterr().out
    assert main(["eval", str(path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == plan_evaluation(spec, check_spec(spec)).text
    for text in ("16 forget, 18 retain; at most 34 prompts", "8: firing_rate x 2 n_features x clamp", "host memory"):
        assert text in printed
    assert main(["eval", str(path)]) == 2
    assert "--out" in capsys.readouterr().err

"""Every mistake in the input of an evaluation ends with exit code 2, one message, and nothing written."""

import json
from pathlib import Path

import pytest
import yaml

from sae_lens_contrastive.training import resolve_runs, train_runs
from sae_lens_contrastive.unlearning import evaluate as evaluate_module


@pytest.fixture(scope="module")
def sae_folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sae")
    texts = "".join(json.dumps({"text": f"text number {i} " * 20}) + "\n" for i in range(40))
    (folder / "general.jsonl").write_text(texts)
    target = {
        "model": "tiny-random-gemma-2",
        "hook_name": "blocks.19.hook_resid_post",
        "corpora": {"general": [str(folder / "general.jsonl")]},
        "sae": {"architecture": "topk", "d_in": 32, "d_sae": 64, "k": 4},
        "training": {"training_tokens": 128, "train_batch_size_tokens": 64, "context_size": 32, "cache_tokens": 256},
    }
    (folder / "target.yaml").write_text(yaml.safe_dump({**target, "variant": "small"}))
    (folder / "none.yaml").write_text("description: none\n")
    (run,) = train_runs(resolve_runs(folder / "target.yaml", [folder / "none.yaml"]), folder / "out", tiny)
    return run / "sae"


EVAL = ["eval", "spec.yaml", "--sae", "SAE"]
BAD_EVALUATION = {
    "missing specification": (["eval", "gone.yaml", "--sae", "SAE"], ["No file at gone.yaml"]),
    "no SAE": (["eval", "spec.yaml"], ["Give at least one SAE: --sae DIR"]),
    "release without id": ([*EVAL, "--release", "r"], ["1 --release and 0 --sae-id", "in pairs"]),
    "missing SAE": (["eval", "spec.yaml", "--sae", "gone"], ["no cfg.json in gone", "save_model"]),
    "same SAE twice": ([*EVAL, "--sae", "SAE"], ["Two of the SAEs have the same name"]),
    "unknown key": ([*EVAL, "--set", "forget_question=[a]"], ["Unknown key 'forget_question'", "'forget_questions'"]),
    "unknown intervention": ([*EVAL, "--set", "interventions={clmap: {}}"], ["'clmap'", "'clamp'"]),
    "unknown domain": (
        [*EVAL, "--set", "forget_questions=[world_facts/countrys]"],
        ["Unknown domain 'countrys'", "'countries'"],
    ),
    "missing questions": ([*EVAL, "--set", "forget_questions=[gone.jsonl]"], ["No question file at 'gone.jsonl'"]),
    "wrong field": (
        [*EVAL, "--set", "forget_questions=[field.jsonl]"],
        ["line 1: unknown field 'anwser'", "Allowed: "],
    ),
    "wrong answer": (
        [*EVAL, "--set", "forget_questions=[answer.jsonl]"],
        ["answer.jsonl, line 1: 'distractors' ['sea', 'sand'] must be distinct and differ from the answer 'sea'"],
    ),
    "question on both sides": (
        [*EVAL, "--set", "retain_questions=[forget_questions.jsonl]"],
        ["The question 'forget0' appears 2 times", "forgotten, retained or only reported, once"],
    ),
    "empty corpus": ([*EVAL, "--set", "forget_corpora=[empty.jsonl]"], ["empty.jsonl holds no document"]),
    "unknown model": ([*EVAL, "--set", "model=gemma-2-2bb"], ["Unknown model 'gemma-2-2bb'", "google/gemma-2-2b"]),
}


@pytest.mark.parametrize(("arguments", "messages"), BAD_EVALUATION.values(), ids=BAD_EVALUATION)
def test_an_evaluation_is_refused_before_the_model_loads(
    work, question, sae_folder, no_model, assert_refused, arguments, messages
):
    Path("empty.jsonl").write_text("")
    wrong = {**question, "id": "x", "entity": "x", "split": "select"}
    Path("field.jsonl").write_text(json.dumps({**wrong, "anwser": "sea"}))
    Path("answer.jsonl").write_text(json.dumps({**wrong, "distractors": ["sea", "sand"]}))
    assert_refused([str(sae_folder) if a == "SAE" else a for a in arguments], messages)


def test_an_evaluation_does_not_touch_another_runs_folder(work, sae_folder, no_model, assert_refused):
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    assert_refused(["eval", "spec.yaml", "--sae", str(sae_folder)], ["out is not empty", "--out"])


def test_an_sae_of_another_width_is_refused(work, sae_folder, tiny, monkeypatch, assert_refused):
    broken = work / "broken"
    broken.mkdir()
    config = json.loads((sae_folder / "cfg.json").read_text())
    config["metadata"]["hook_name"] = "blocks.40.hook_resid_post"
    (broken / "cfg.json").write_text(json.dumps(config))
    for path in sae_folder.glob("*.safetensors"):
        (broken / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(evaluate_module, "load_model", lambda *_args, **_kwargs: tiny)
    assert_refused(["eval", "spec.yaml", "--sae", "broken"], ["asks for layer 40", "layers 0 to 25"])

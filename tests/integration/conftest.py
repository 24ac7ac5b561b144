"""A working folder with everything that a command needs, and the check that a command refuses its input."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.models.embedded import CACHE_VARIABLE
from sae_lens_contrastive.training import runner as runner_module
from sae_lens_contrastive.training import train as train_module
from sae_lens_contrastive.unlearning import evaluate as evaluate_module

ROOT = Path(__file__).parents[2]
EVALUATED = ["eval", "tiny.yaml", "--sae", "trained/plain/sae", "--out", "out", "--set", "retain_gate=0.01"]
QUESTION = {
    "domain": "rivers",
    "relation": "mouth",
    "stems": ["The Nile flows into the"],
    "answer": "sea",
    "distractors": ["lake", "sand"],
}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with a target, variants, a specification and their files, all of it right; the working directory."""
    monkeypatch.chdir(tmp_path)
    _write_work()
    return tmp_path


def _write_work():
    for name in ("general", "forget", "retain"):
        texts = [f"{name} text number {i} " * 12 for i in range(40)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        questions = [
            {**QUESTION, "id": f"{name}{i}", "entity": f"{name}{i}", "split": ("select", "held_out")[i % 2]}
            for i in range(8)
        ]
        Path(f"{name}_questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    target = {
        "model": "tiny-random-gemma-2",
        "hook_name": "blocks.19.hook_resid_post",
        "corpora": {"general": ["general.jsonl"], "forget": ["forget.jsonl"], "retain": ["retain.jsonl"]},
        "sae": {"architecture": "topk", "d_in": 32, "d_sae": 64, "k": 4},
        "training": {
            "training_tokens": 512,
            "train_batch_size_tokens": 128,
            "context_size": 32,
            "store_batch_size_prompts": 4,
            "cache_tokens": 512,
        },
    }
    _write("target.yaml", target)
    _write("unlabelled.yaml", {**target, "corpora": {"general": ["general.jsonl"]}})
    _write("plain.yaml", {"description": "nothing added"})
    _write("term.yaml", {"sae": {"loss_terms": {"supervised_contrastive": {"coefficient": 0.1}}}})
    _write("twin.yaml", {"variant": "plain"})
    spec = {
        "model": "tiny-random-gemma-2",
        "forget_domain": "rivers",
        "forget_questions": ["forget_questions.jsonl"],
        "retain_questions": ["retain_questions.jsonl"],
        "forget_corpora": ["forget.jsonl"],
        "retain_corpora": ["retain.jsonl"],
    }
    _write("spec.yaml", spec)


def _write(name, values):
    Path(name).write_text(yaml.safe_dump(values))


@pytest.fixture(scope="session")
def prepared_once(session_cache, tmp_path_factory):
    """A folder as `prepared` is; made once and left as it is."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(CACHE_VARIABLE, str(session_cache))
        _write_work()
        _prepare()
    return folder


@pytest.fixture
def prepared(prepared_once, model_cache, tmp_path, monkeypatch):
    """The working folder with two trained SAEs, a specification, a study, a search and a sweep."""
    return _working_in_a_copy_of(prepared_once, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def evaluated_once(prepared_once, session_cache, tmp_path_factory):
    """A folder as `evaluated` is; made once and left as it is."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(session_cache))
        _working_in_a_copy_of(prepared_once, folder, patch)
        assert main([*EVALUATED, "--set", "measures.random_baseline=null", "--set", "measures.text_effects=null"]) == 0
    return folder


@pytest.fixture
def evaluated(evaluated_once, model_cache, tmp_path, monkeypatch):
    """The same with `plain` evaluated into `out`, where a setting passes the gate."""
    return _working_in_a_copy_of(evaluated_once, tmp_path, monkeypatch)


def _working_in_a_copy_of(folder, place, patch):
    shutil.copytree(folder, place, dirs_exist_ok=True)
    patch.chdir(place)
    return place


def _prepare():
    spec = yaml.safe_load((ROOT / "evals/world_facts_tiny.yaml").read_text())
    spec |= {"max_questions": 24, "n_bootstrap": 50, "max_corpus_tokens": 400}
    _write("tiny.yaml", spec)
    study = {
        "target": "target.yaml",
        "spec": "tiny.yaml",
        "seeds": [0, 1],
        "settings": {"small": {"variants": ["plain.yaml"]}, "wide": {"variants": ["term.yaml"]}},
    }
    _write("study.yaml", study)
    search = {
        "target": "target.yaml",
        "variant": "term.yaml",
        "spec": "tiny.yaml",
        "space": {"sae.k": {"choices": [2, 4]}},
    }
    _write("search.yaml", {**search, "n_trials": 3, "population_size": 2})
    sweep = {"target": "target.yaml", "variants": ["term.yaml"], "spec": "tiny.yaml"}
    _write("sweep.yaml", {**sweep, "grid": {"sae.k": [2]}, "seeds": [0, 1]})
    assert main(["train", "target.yaml", "plain.yaml", "term.yaml", "--out", "trained"]) == 0


@pytest.fixture
def question():
    """The fields that the questions of the working folder share."""
    return QUESTION


@pytest.fixture
def no_model(monkeypatch):
    for module in (train_module, runner_module, evaluate_module):
        monkeypatch.setattr(module, "load_model", lambda *_args, **_kwargs: pytest.fail("the model was loaded"))


def _tree():
    return {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.fixture
def assert_refused(capsys):
    def check(arguments, messages):
        _check_refused(capsys, arguments, messages)

    return check


def _check_refused(capsys, arguments, messages):
    before = _tree()
    assert main([*arguments, "--out", "out"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("sae-lens-contrastive: ")
    assert "Traceback" not in output.err
    assert [message for message in messages if message not in output.err] == []
    assert output.err.count("\n") == 1
    assert _tree() == before

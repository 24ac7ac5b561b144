"""Every command that the README and the documentation show is run, page by page, on the tiny model."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from folder_hub import folder_in_place_of_the_hub

from sae_lens_contrastive import demo
from sae_lens_contrastive.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = "sae-lens-contrastive"
_BLOCK = re.compile(r"^( *)```(bash|yaml)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^ *# file: (\S+)$", re.MULTILINE)
_OTHERS = ("make ", "source ", "hf auth login", "ray start ", ".venv/bin/python ")
_ON_A_CLUSTER = ["--ray-address", "auto"]
SHORT = {"training_tokens": 2048, "train_batch_size_tokens": 256, "cache_tokens": 1024, "context_size": 64}
GEMMA_SCOPE = Path("hub/gemma-scope-2b-pt-res-canonical/layer_19/width_16k/canonical")


def blocks(page, language):
    return [body for _, found, body in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def lines(page):
    """Lines of the shell blocks as words, without comments; a line that goes on is one."""
    whole = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [words for line in whole.splitlines() if (words := shlex.split(line, comments=True))]


def commands(page):
    return [words for words in lines(page) if words[0] == "torchrun" or Path(words[0]).name == COMMAND]


def ran(words):
    """Exit code of a command, as it is shown; torchrun's in processes of its own."""
    if words[0] != "torchrun":
        return main(words[1:])
    torchrun = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(torchrun, env=environment).returncode


def tiny(name):
    return yaml.safe_load((ROOT / name).read_text())


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))


def texts(subject, n):
    return [{"text": f"{subject} number {i} flows on and on. " * 8, "entities": [f"{subject} {i}"]} for i in range(n)]


@pytest.fixture
def working(tmp_path, monkeypatch, model_cache):
    """A folder with the files that the pages name, each of them for the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    shutil.copytree(ROOT / "configs", "configs")
    target = tiny("configs/targets/tiny.yaml")
    target["training"] |= SHORT
    spec = tiny("evals/world_facts_tiny.yaml") | {"max_questions": 12, "max_corpus_tokens": 400, "retain_gate": 0.01}
    spec |= {"n_bootstrap": 50, "selectors": {"firing_rate": {"retain_threshold": [0.9]}, "reserved": {}}}
    spec["measures"] = {"random_baseline": None}
    for name in ("smollm2", "gemma-2-2b"):
        write(Path(f"configs/targets/{name}.yaml"), target)
    for name in ("world_facts_smollm2", "wmdp_bio_gemma_2_2b_it"):
        write(Path(f"evals/{name}.yaml"), spec)
    study = {"target": "../configs/targets/smollm2.yaml", "spec": "world_facts_smollm2.yaml", "seeds": [0]}
    write(
        Path("evals/study_smollm2.yaml"), {**study, "settings": {"a": {"variants": ["../configs/variants/run0.yaml"]}}}
    )
    one_job = {"grid": {"sae.k": [16]}, "seeds": [0], "resources": {"num_cpus": 1}}
    write(Path("configs/sweeps/smollm2.yaml"), tiny("configs/sweeps/smollm2.yaml") | one_job)
    write(Path("my_target.yaml"), target)
    write(Path("my_spec.yaml"), spec)
    monkeypatch.setattr(demo, "TARGET", "configs/targets/tiny.yaml")
    monkeypatch.setattr(demo, "SPEC", "evals/world_facts_tiny.yaml")
    _write_rivers()
    _write_task()
    folder_in_place_of_the_hub(tmp_path / "hub", monkeypatch)
    return target, spec


def _write_rivers():
    for name, subject in (("rivers", "The river"), ("lakes", "The lake")):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in texts(subject, 60)))
    questions = [
        {"id": f"rivers/{i}", "domain": "rivers", "relation": "mouth", "entity": f"The river {i}"}
        | {"split": ("select", "held_out")[i % 2], "stems": [f"River {i} flows into the"]}
        | {"answer": ("sea", "lake", "sand", "land")[i % 4]}
        | {
            "distractors": [
                word for word in ("sea", "lake", "sand", "land") if word != ("sea", "lake", "sand", "land")[i % 4]
            ]
        }
        for i in range(80)
    ]
    Path("rivers_questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))


def _write_task():
    write(
        Path("my_tasks/my_task.yaml"),
        {
            "task": "my_task",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(Path("rivers_questions.jsonl").resolve())}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{stems[0]}}",
            "doc_to_choice": "{{[answer] + distractors}}",
            "doc_to_target": 0,
            "metric_list": [{"metric": "acc"}],
        },
    )


def files_shown(page, target, spec):
    """Files that a page shows whole, with the model and sizes of the tiny one."""
    for body in blocks(page, "yaml"):
        if (named := _FILE.search(body)) is not None:
            values = yaml.safe_load(body)
            if "sae" in values:
                values |= {"model": target["model"], "hook_name": target["hook_name"]}
                values["sae"] |= {"d_in": 32, "d_sae": 64}
                values["architectures"] = target["architectures"]
                values["training"] |= SHORT
            else:
                shorter = ("model", "max_corpus_tokens", "context_size", "retain_gate", "n_bootstrap", "measures")
                values |= {key: spec[key] for key in shorter} | {"min_known_questions": 1}
                values["selectors"] = spec["selectors"]
            write(Path(named[1]), values)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_in_its_order(page, working):
    files_shown(page, *working)
    for words in commands(page):
        if "gemma-scope-2b-pt-res-canonical" in words:
            shutil.copytree(next(Path("runs").glob("*/baseline/sae")), GEMMA_SCOPE)
        # The slow suite has a cluster; here the same is done in this process.
        here = [word for word in words if word not in _ON_A_CLUSTER]
        assert ran(here) == 0, " ".join(words)


def test_there_are_commands_and_nothing_else_is_shown_as_one():
    assert sum(len(commands(page)) for page in PAGES) > 20
    others = [words for page in PAGES for words in lines(page) if words not in commands(page)]
    assert [words for words in others if not " ".join(words).startswith(_OTHERS)] == []

"""Every mistake in the input ends with exit code 2, one message that says what to change, and nothing written."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from sae_lens_contrastive import demo
from sae_lens_contrastive.cli import main
from sae_lens_contrastive.training import train as train_module

TERM = "sae.loss_terms.supervised_contrastive"
TRAIN = ["train", "target.yaml"]
BAD_TRAINING = {
    "missing target": (["train", "gone.yaml", "plain.yaml"], ["No file at gone.yaml", "examples are in configs/"]),
    "missing variant": ([*TRAIN, "gone.yaml"], ["No file at gone.yaml", "YAML configuration"]),
    "unknown key": ([*TRAIN, "plain.yaml", "--set", "sed=1"], ["Unknown key 'sed'", "'seed'", "Allowed: "]),
    "unknown training key": (
        [*TRAIN, "plain.yaml", "--set", "training.learning_rate=1"],
        ["Unknown key 'training.learning_rate'", "training.lr"],
    ),
    "unknown SAE key": ([*TRAIN, "plain.yaml", "--set", "sae.d_sea=1"], ["Unknown key in sae: 'd_sea'", "'d_sae'"]),
    "unknown architecture": (
        [*TRAIN, "plain.yaml", "--set", "sae.architecture=topp"],
        ["Unknown sae.architecture 'topp'", "'topk'", "matryoshka_batchtopk, standard, topk"],
    ),
    "unknown term": (
        [*TRAIN, "plain.yaml", "--set", "sae.loss_terms.contrastive={coefficient: 1}"],
        ["Unknown loss term 'contrastive'", "Allowed: ", "group_contrastive", "register_loss_term"],
    ),
    "unknown option of a term": (
        [*TRAIN, "term.yaml", "--set", f"{TERM}.temprature=1"],
        ["Unknown key in loss_terms.supervised_contrastive: 'temprature'", "'temperature'"],
    ),
    "option of a term out of range": ([*TRAIN, "term.yaml", "--set", f"{TERM}.temperature=0"], ["is 0", "above 0"]),
    "term without coefficient": (
        [*TRAIN, "plain.yaml", "--set", f"{TERM}={{temperature: 0.5}}"],
        ["loss_terms.supervised_contrastive has no coefficient", "Add for example coefficient: 0.1"],
    ),
    "term without labels": (
        ["train", "unlabelled.yaml", "term.yaml"],
        ["loss_terms.supervised_contrastive", "no forget and retain corpus is given", "Give both, or drop it"],
    ),
    "forget without retain": (
        [*TRAIN, "plain.yaml", "--set", "corpora.retain=[]"],
        ["Give a forget and a retain corpus, or neither"],
    ),
    "groups without grouping": (
        [*TRAIN, "plain.yaml", "--set", "sae.loss_terms.group_contrastive.coefficient=1"],
        ["loss_terms.group_contrastive works on correlation groups", "Add for example grouping"],
    ),
    "wrong type": ([*TRAIN, "plain.yaml", "--set", "training.lr=fast"], ["training.lr", "got 'fast'"]),
    "number out of range": ([*TRAIN, "plain.yaml", "--set", "training.lr=-1"], ["training.lr", "greater than 0", "-1"]),
    "no SAE size": ([*TRAIN, "plain.yaml", "--set", "sae.d_sae=0"], ["d_sae is 0; it must be 1 or more"]),
    "unknown model": (
        [*TRAIN, "plain.yaml", "--set", "model=gemma-2-2bb"],
        ["Unknown model 'gemma-2-2bb'", "google/gemma-2-2b", "local Hugging Face folder"],
    ),
    "unknown device": ([*TRAIN, "plain.yaml", "--set", "device=gpu"], ["Unknown device 'gpu'", "Allowed: cpu, cuda"]),
    "unknown dtype": ([*TRAIN, "plain.yaml", "--set", "dtype=float23"], ["dtype", "'float32'", "float23"]),
    "unknown domain": (
        [*TRAIN, "plain.yaml", "--set", "corpora.hold_out_entities_of=[world_facts/countrys]"],
        ["Unknown domain 'countrys'", "Did you mean 'countries'?", "Or give the path"],
    ),
    "missing corpus": (
        [*TRAIN, "plain.yaml", "--set", "corpora.general=[gone.jsonl]"],
        ["No corpus at 'gone.jsonl'", "world_facts/NAME"],
    ),
    "empty corpus": (
        [*TRAIN, "plain.yaml", "--set", "corpora.general=[empty.jsonl]"],
        ["empty.jsonl holds no document", "at least one text"],
    ),
    "damaged corpus": (
        [*TRAIN, "plain.yaml", "--set", "corpora.forget=[damaged.jsonl]"],
        ["damaged.jsonl, line 2: 'text' must be a non-empty string, got 3"],
    ),
    "same variant twice": (
        [*TRAIN, "plain.yaml", "twin.yaml"],
        ["Two variants are named 'plain'", "another `variant:` name"],
    ),
    "malformed --set": ([*TRAIN, "plain.yaml", "--set", "seed"], ["--set takes key=value, got 'seed'", "Example"]),
    "too few tokens": (
        [*TRAIN, "plain.yaml", "--set", "training.training_tokens=100"],
        ["training_tokens is 100, less than one batch of 128", "Raise it or lower"],
    ),
    "a share too small": (
        [*TRAIN, "plain.yaml", "--set", "corpora.forget_share=0.001"],
        ["forget_share 0.001", "leave a domain without tokens", "batch of 128"],
    ),
}


@pytest.mark.parametrize(("arguments", "messages"), BAD_TRAINING.values(), ids=BAD_TRAINING)
def test_training_is_refused_before_the_model_loads(work, no_model, assert_refused, arguments, messages):
    Path("empty.jsonl").write_text("")
    Path("damaged.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    assert_refused(arguments, messages)


BAD_FOR_THE_MODEL = {
    "unknown hook": (["hook_name=blocks.19.hook_residual"], ["Unknown hook 'blocks.19.hook_residual'", "L is 0 to 25"]),
    "layer beyond": (["hook_name=blocks.40.hook_resid_post"], ["asks for layer 40", "layers 0 to 25"]),
    "wrong d_in": (["sae.d_in=64"], ["d_in is 64", "have width 32", "Set d_in: 32"]),
}


@pytest.mark.parametrize(("overrides", "messages"), BAD_FOR_THE_MODEL.values(), ids=BAD_FOR_THE_MODEL)
def test_what_only_the_model_can_tell_is_refused_without_a_trace(
    work, tiny, monkeypatch, assert_refused, overrides, messages
):
    monkeypatch.setattr(train_module, "load_model", lambda *_args, **_kwargs: tiny)
    sets = [argument for override in overrides for argument in ("--set", override)]
    assert_refused([*TRAIN, "plain.yaml", *sets], messages)


def test_a_hub_name_without_network_is_refused(work, monkeypatch, assert_refused):
    def unreachable(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(work / "hub"))
    messages = ["'google/gemma-2-2b' is not in the local cache", "no route to host", "smollm2-135m-instruct"]
    assert_refused([*TRAIN, "plain.yaml", "--set", "model=google/gemma-2-2b"], messages)


def test_a_folder_of_another_run_or_of_something_else_is_refused(work, no_model, assert_refused):
    Path("out/plain").mkdir(parents=True)
    Path("out/plain/thesis.txt").write_text("mine")
    assert_refused([*TRAIN, "plain.yaml"], ["plain is not empty and holds no run.json", "--out"])
    assert_refused([*TRAIN, "term.yaml", "plain.yaml"], ["plain is not empty and holds no run.json"])
    Path("out/plain/thesis.txt").unlink()
    Path("out/plain/run.json").write_text(json.dumps({"kind": "train", "config": {"seed": 7}}))
    assert_refused([*TRAIN, "plain.yaml"], ["plain holds another run", "Give another folder with --out"])


@pytest.mark.parametrize("damage", ["missing", "empty", "damaged"])
def test_a_report_on_nothing_is_refused(work, capsys, damage):
    if damage != "missing":
        Path("results").mkdir()
    if damage == "damaged":
        Path("results/results.json").write_text("[")
    before = sorted(Path().rglob("*"))
    assert main(["report", "results"]) == 2
    assert "results" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_a_demo_does_not_touch_another_runs_folder(work, no_model, monkeypatch, assert_refused):
    monkeypatch.setattr(demo, "resolve_runs", lambda *_args: [])
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    assert_refused(["demo"], ["out is not empty and holds no run.json", "--out"])

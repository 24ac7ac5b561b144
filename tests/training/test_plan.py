"""`train --dry-run`, and the Gemma target in miniature."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from sae_lens import SAE

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.models import TINY_GEMMA_2, loading
from sae_lens_contrastive.training import resolve_run, resolve_runs, train_runs

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = [str(CONFIGS / f"variants/{name}.yaml") for name in ("run0", "run1")]


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, model_cache, tmp_path):
    """No GPU, no hub, no weights, and an empty folder to run in."""

    def fail(*_args, **_kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(HfApi, "model_info", fail)
    monkeypatch.setattr(HfApi, "dataset_info", fail)
    monkeypatch.setattr(
        loading.AutoModelForCausalLM, "from_pretrained", lambda *_args, **_kwargs: pytest.fail("weights were loaded")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _plan(capsys, *arguments):
    assert main(["train", *arguments, "--dry-run"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_plan_of_the_gemma_target_needs_no_hub_no_gpu_and_no_weights(capsys, nothing_here):
    text = _plan(capsys, str(CONFIGS / "targets/gemma-2-2b.yaml"), *RUNS, "--out", "runs/plan")
    for part in (
        "run0 sae standard, d_in 2,304, d_sae 2,304, blocks.19.hook_resid_post of google/gemma-2-2b",
        "204,800,000 tokens, 50,000 steps of 4,096 (general 2,048, forget 1,024, retain 1,024), lr 0.0003",
        "loss terms group_contrastive 0.1 trackers grouping every 100 steps surgeries none",
        "run0, run1: side by side, the model runs once",
        "forget hub:cais/wmdp-bio-forget-corpus",
        "2,614,341,888 parameters in 26 layers, bfloat16, on cuda",
        "model weights 5.2 GB",
        "of 80.0 GB on one NVIDIA A100 with 80 GB: fits",
        "assumed, the device is not here",
    ):
        assert part in text
    assert list(nothing_here.iterdir()) == []


def test_a_plan_of_the_tiny_target_is_measured_on_this_machine(capsys, nothing_here):
    text = _plan(capsys, str(CONFIGS / "targets/tiny.yaml"), *RUNS)
    assert "251,328 parameters in 26 layers, float32, on cpu" in text
    assert "on this machine's cpu: fits" in text
    assert "measured: a matrix product does" in text
    assert list(nothing_here.iterdir()) == []


def test_a_model_that_only_the_hub_knows_leaves_a_plan_of_the_saes(capsys):
    text = _plan(capsys, str(CONFIGS / "targets/tiny.yaml"), *RUNS, "--set", "model=pythia-70m")
    assert "shape unknown" in text
    assert "hub does not answer: Name or service not known. Only the SAEs are estimated." in text
    assert "time unknown: model unknown, run0 " in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("corpora.general=[hub:a/b/c]", "'hub:a/b/c' is not of the form hub:NAME#CONFIG@SPLIT:COLUMN"),
        ("device=gpu", "Unknown device 'gpu'"),
        ("hook_name=blocks.26.hook_resid_post", "asks for layer 26, but the model has layers 0 to 25"),
    ],
)
def test_what_cannot_be_trained_has_no_plan(capsys, change, message):
    assert main(["train", str(CONFIGS / "targets/gemma-2-2b.yaml"), *RUNS, "--dry-run", "--set", change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_training_needs_a_folder(capsys):
    assert main(["train", str(CONFIGS / "targets/tiny.yaml"), *RUNS]) == 2
    assert "Give a folder for the runs with --out" in capsys.readouterr().err


@pytest.mark.parametrize("target", sorted((CONFIGS / "targets").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_target_resolves_with_every_architecture_it_has_defaults_for(target):
    run = resolve_run(target, CONFIGS / "variants/baseline.yaml", any_device=True)
    assert run.corpora.forget
    for architecture in run.architectures:
        overrides = {"sae": {"architecture": architecture}}
        assert resolve_run(target, CONFIGS / "variants/baseline.yaml", overrides, any_device=True).sae_config()


def test_the_gemma_target_trains_in_miniature(tiny_model, corpora, tmp_path):
    small = {
        "training_tokens": 1024,
        "train_batch_size_tokens": 128,
        "context_size": 32,
        "store_batch_size_prompts": 4,
        "n_batches_in_buffer": 8,
        "n_batches_for_norm_estimate": 2,
        "lr_warm_up_steps": 2,
        "lr_decay_steps": 2,
        "n_checkpoints": 1,
    }
    changes = {
        "model": TINY_GEMMA_2,
        "device": "cpu",
        "corpora": corpora,
        "sae": {"d_in": 32, "d_sae": 96},
        "training": small,
    }
    names = ("run1", "run3", "run5", "all_mechanisms")
    runs = resolve_runs(
        CONFIGS / "targets/gemma-2-2b.yaml", [CONFIGS / f"variants/{name}.yaml" for name in names], changes
    )
    assert all(run.training.autocast and run.dtype == "bfloat16" for run in runs)
    for folder in train_runs(runs, tmp_path / "out", tiny_model):
        assert all(parameter.isfinite().all() for parameter in SAE.load_from_disk(folder / "sae").parameters())

"""Weights & Biases, offline: what each variant's run holds, read from the files that W&B would send."""

from dataclasses import replace

import pytest
import torch
import wandb
from made_runs import TARGET, overrides, variants
from offline_wandb import offline_runs
from safetensors.torch import load_file

from sae_lens_contrastive import ContrastiveTrainingRunner
from sae_lens_contrastive.cli import main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.training import RunConfig, load_summary, resolve_runs, train_runs
from sae_lens_contrastive.training.side_by_side import SideBySideTrainer
from sae_lens_contrastive.training.wandb_runs import VariantLogging, wandb_runs
from sae_lens_contrastive.wandb_session import record_table

NAMES = ("baseline", "all_mechanisms")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    folder = tmp_path / "logged"
    folder.mkdir()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield folder
    wandb.teardown()


@pytest.fixture
def often(monkeypatch):
    """Log every second step, and evaluate at every second of those."""
    made = RunConfig.runner_config

    def often_logged(run, output_path):
        config = made(run, output_path)
        logger = replace(config.logger, wandb_log_frequency=2, eval_every_n_wandb_logs=2)
        return replace(config, logger=logger, n_eval_batches=1, eval_batch_size_prompts=2)

    monkeypatch.setattr(RunConfig, "runner_config", often_logged)


def runs_of(corpora, *names, logged=True, **training):
    changes = {**overrides(corpora, log_to_wandb=logged, wandb_project="forgetting", **training), "sae": {"d_sae": 96}}
    return resolve_runs(TARGET, variants(*names), changes)


def keys_of(run):
    return {key for row in run.history for key in row if not key.startswith(("_", "trackers/"))}


def test_each_variant_has_a_run_of_its_own_under_saelens_keys(tiny_model, corpora, tmp_path, offline, often):
    folders = dict(zip(NAMES, train_runs(runs_of(corpora, *NAMES), tmp_path / "out", tiny_model), strict=True))
    alone = runs_of(corpora, "baseline")[0]
    runner_config = alone.runner_config(None)
    runner_config.logger.run_name = "stock"
    ContrastiveTrainingRunner(runner_config, override_model=tiny_model, override_dataset=_texts(alone)).run()
    found = offline_runs(offline)
    assert found.keys() == {*NAMES, "stock"}
    stock = keys_of(found["stock"])
    assert {"losses/overall_loss", "metrics/l0", "model_performance_preservation/ce_loss_score"} <= stock
    assert keys_of(found["baseline"]) == stock
    assert keys_of(found["all_mechanisms"]) > stock
    for name in NAMES:
        run = found[name]
        assert (run.project, run.group, run.exit_code) == ("forgetting", "out", 0)
        assert run.config["hook_name"] == "blocks.19.hook_resid_post"
        assert run.steps_of("losses/overall_loss") == [1, 3, 5, 7]
        assert run.steps_of("model_performance_preservation/ce_loss_score") == [3, 7]
        summary = load_summary(folders[name])
        assert run.summary["summary/explained_variance"] == pytest.approx(summary["explained_variance"])
        (model,) = [files for kind, _, files, aliases in run.artifacts if "final_model" in aliases and kind == "model"]
        assert model == ("cfg.json", "sae_weights.safetensors")
        sparsity = {files for kind, _, files, _ in run.artifacts if kind == "log_feature_sparsity"}
        assert sparsity == {("sparsity.safetensors",)}
        trackers = {key.removeprefix("trackers/") for row in run.history for key in row if key.startswith("trackers/")}
        assert {key.split("/")[0] for key in trackers} == set(read_json(folders[name] / "trackers.json"))


def _texts(run):
    from sae_lens_contrastive.data.sources import corpus_dataset

    return corpus_dataset(run.corpora.general, (), run.seed)


def test_what_is_trained_does_not_depend_on_whether_it_is_logged(tiny_model, corpora, tmp_path, often):
    weights = []
    for logged in (True, False):
        runs = runs_of(corpora, "all_mechanisms", logged=logged)
        (folder,) = train_runs(runs, tmp_path / str(logged), tiny_model)
        weights.append(load_file(folder / "sae/sae_weights.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_run_that_fails_is_marked_as_failed(tiny_model, corpora, tmp_path, offline, monkeypatch):
    def broken(trainer):
        raise RuntimeError("broken")

    monkeypatch.setattr(SideBySideTrainer, "fit", broken)
    with pytest.raises(RuntimeError, match="broken"):
        train_runs(runs_of(corpora, "baseline"), tmp_path / "out", tiny_model)
    assert offline_runs(offline)["baseline"].exit_code == 1


def test_a_continued_training_goes_on_with_its_run(corpora, tmp_path, monkeypatch):
    asked = []

    class Opened:
        id = "abc"

        def finish(self, exit_code):
            asked.append(exit_code)

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    monkeypatch.setattr(wandb, "init", lambda **how: asked.append((how["id"], how["resume"])) or Opened())
    (run,) = runs_of(corpora, "baseline")
    for _ in range(2):
        config = run.runner_config(tmp_path)
        with wandb_runs({"baseline": config}, {"baseline": tmp_path}, "group"):
            assert isinstance(config.logger, VariantLogging)
            assert "run" not in config.to_dict()["logger"]
    assert asked == [(None, "allow"), 0, ("abc", "allow"), 0]


def test_without_a_key_nothing_is_begun(corpora, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    command = ["train", str(TARGET), *map(str, variants("baseline")), "--out", str(tmp_path / "out")]
    assert main([*command, "--set", "training.log_to_wandb=true"]) == 2
    assert "W&B has no API key. Log in with `wandb login`, or set WANDB_MODE=offline" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("said", ["invalid API key", "Failed to authenticate with https://api.wandb.ai: no route"])
def test_a_key_that_the_server_does_not_take_is_said_in_a_sentence(corpora, tmp_path, monkeypatch, capsys, said):
    def refuse(prompt):
        raise wandb.errors.AuthenticationError(said)

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", refuse)
    command = ["train", str(TARGET), *map(str, variants("baseline")), "--out", str(tmp_path / "out")]
    assert main([*command, "--set", "training.log_to_wandb=true"]) == 2
    assert f"Logging in to W&B failed: {said}. Log in with `wandb login`, or" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_refused_project_is_said_in_a_sentence(corpora, tmp_path, monkeypatch):
    def refuse(**how):
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb, "init", refuse)
    (run,) = runs_of(corpora, "baseline")
    with (
        pytest.raises(UserError, match="W&B refuses a run in project 'forgetting': permission denied"),
        wandb_runs({"baseline": run.runner_config(tmp_path)}, {"baseline": tmp_path}, "group"),
    ):
        pass


def test_a_file_that_no_training_wrote_is_refused(corpora, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    write_json(tmp_path / "wandb.json", ["abc"])
    (run,) = runs_of(corpora, "baseline")
    with (
        pytest.raises(UserError, match=r"wandb\.json is not what a training wrote\. Delete it"),
        wandb_runs({"baseline": run.runner_config(tmp_path)}, {"baseline": tmp_path}, "group"),
    ):
        pass


def test_records_become_a_table_with_a_column_for_every_key():
    table = record_table([{"step": 1, "sizes": [3, 2]}, {"step": 2, "auc": 0.5}])
    assert table.columns == ["step", "sizes", "auc"]
    assert table.data == [[1, "[3, 2]", None], [2, None, 0.5]]

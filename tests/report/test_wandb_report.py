import json

import pytest
import wandb
from offline_wandb import offline_runs

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.files import write_json


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield folder
    wandb.teardown()


def test_a_report_is_logged_with_table_figures_page_and_files(study_folder, offline, capsys):
    write_json(study_folder / "wide/seed0/eval/plain/forget_edits/run5.json", {})
    assert main(["report", str(study_folder), "--wandb-project", "forgetting", "--wandb-entity", "us"]) == 0
    ((name, run),) = offline_runs(offline).items()
    assert (name, run.project, run.entity, run.exit_code) == (study_folder.name, "forgetting", "us", 0)
    assert f"W&B: {run.id}" in capsys.readouterr().out
    (logged,) = run.history
    assert {"results/_type", "report/_type", "figures/frontier/_type", "figures/training_losses/_type"} <= logged.keys()
    folder = next(offline.glob("wandb/offline-run-*/files"))
    table = json.loads((folder / logged["results/path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 8
    assert (rows[0]["setting"], rows[0]["variant"], rows[0]["unlearning_score"]) == ("wide", "run0", 0.0)
    assert {row["cause_of_zero"] for row in rows if row["variant"] == "run0"} == {"retain_gate"}
    assert (folder / logged["report/path"]).read_text() == (study_folder / "report.html").read_text()
    (files,) = [files for kind, _, files, _ in run.artifacts if kind == "results"]
    assert {"results.json", "report.html", "frontier.png", "wide/seed0/eval/plain/forget_edits/run5.json"} <= {*files}


def test_a_folder_may_have_a_name_that_an_artefact_may_not(run_folder, offline):
    folder = run_folder.rename(run_folder.with_name("Länder, zweiter Versuch"))
    assert main(["report", str(folder), "--wandb-project", "forgetting"]) == 0
    ((name, run),) = offline_runs(offline).items()
    assert name == "Länder, zweiter Versuch"
    assert run.artifacts


def test_without_a_key_nothing_is_written(run_folder, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    assert main(["report", str(run_folder), "--wandb-project", "forgetting"]) == 2
    assert "W&B has no API key" in capsys.readouterr().err
    assert not (run_folder / "report.html").exists()


def test_a_search_is_not_logged(tmp_path, capsys):
    write_json(tmp_path / "pareto.json", {})
    assert main(["report", str(tmp_path), "--wandb-project", "forgetting"]) == 2
    assert "A search is not logged to W&B. Evaluate SAEs of its front" in capsys.readouterr().err


def test_an_entity_alone_is_refused(run_folder, capsys):
    assert main(["report", str(run_folder), "--wandb-entity", "us"]) == 2
    assert "Give --wandb-project with --wandb-entity." in capsys.readouterr().err
    assert not (run_folder / "report.html").exists()

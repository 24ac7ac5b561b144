"""What a study does with parts that are finished, or that another process has; no part is trained here."""

import json
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from sae_lens_contrastive import UserError
from sae_lens_contrastive import study as study_module
from sae_lens_contrastive.cli import main
from sae_lens_contrastive.runs import LOCK_FILE
from sae_lens_contrastive.study import plan_study, run_study
from sae_lens_contrastive.training.plan import Plan

ROOT = Path(__file__).parents[1]
HELD_OUT = {"forget_accuracy": 0.5, "chance": 0.25, "forgetting": 0.7, "retain_accuracy": 1.0, "ci95": [0.4, 0.6]}
SCORED = {"unlearning_score": 0.5, "held_out": HELD_OUT, "cause_of_zero": None, "retain_gate": 0.99}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of two settings with two seeds, whose parts come to made rows; the working directory is its own."""
    monkeypatch.chdir(tmp_path)
    settings = {name: {"variants": [str(ROOT / "configs/variants/run0.yaml")]} for name in ("small", "wide")}
    files = {"target": str(ROOT / "configs/targets/tiny.yaml"), "spec": str(ROOT / "evals/world_facts_tiny.yaml")}
    Path("study.yaml").write_text(yaml.safe_dump({**files, "seeds": [0, 1], "settings": settings}))
    monkeypatch.setattr(study_module, "load_model", lambda *_args, **_how: None)
    monkeypatch.setattr(study_module, "_rows", made_rows)
    return "study.yaml"


def made_rows(_place, part, *_others):
    named = {"variant": "run0", "seed": part.seed, "forget_domain": "countries", "study_setting": part.setting}
    return [{**named, **SCORED}]


def parts_of(rows):
    return [f"{row['study_setting']}/seed{row['seed']}" for row in rows]


def saved_parts(out):
    return parts_of(json.loads(Path(out, "results.json").read_text()))


def test_a_part_that_another_process_has_is_left_to_it_and_named_once_the_others_are_done(study):
    run_study(study, "out", only=["wide/seed1"])
    Path("out/small/seed0").mkdir(parents=True)
    with FileLock(Path("out/small/seed0") / LOCK_FILE):
        with pytest.raises(UserError, match=r"at work on small/seed0 in out; all else is done\. .* same command"):
            run_study(study, "out")
        assert saved_parts("out") == ["small/seed1", "wide/seed0", "wide/seed1"]
        assert Path("out/report.html").is_file()
    assert parts_of(run_study(study, "out")) == ["small/seed0", "small/seed1", "wide/seed0", "wide/seed1"]


def test_where_another_process_has_all_there_is_to_do_that_is_said_and_no_results_are_written(study, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(study_module, "_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_study(study, "out", only=["small/seed1"])
    Path("out/small/seed0").mkdir(parents=True)
    with FileLock(Path("out/small/seed0") / LOCK_FILE), pytest.raises(UserError, match="at work on small/seed0 in out"):
        run_study(study, "out", only=["small/seed0"])
    assert not Path("out/results.json").exists()


def test_how_many_parts_are_taken_over_is_said(study, capsys):
    run_study(study, "one", only=["small"])
    assert "taken over" not in capsys.readouterr().out
    run_study(study, "two", only=["small/seed0"])
    capsys.readouterr()
    run_study(study, "two", finished="one/results.json")
    assert (
        "1 of 4 parts taken over from one/results.json; 1 were finished before" in capsys.readouterr().out.splitlines()
    )


def test_a_plan_counts_only_what_is_left_and_names_the_rest(study, monkeypatch):
    monkeypatch.setattr(study_module, "plan_runs", lambda _runs: Plan("", seconds=60.0, peak_bytes=1e6, fits=True))
    run_study(study, "one", only=["small"])
    run_study(study, "two", only=["small/seed0"])
    whole = plan_study(study)
    left = plan_study(study, finished="one/results.json", out="two")
    lines = left.text.splitlines()
    assert lines[:2] == ["small/seed0: finished in two", "small/seed1: taken over from one/results.json"]
    assert [line.split(": ")[0] for line in lines[2:]] == ["wide/seed0", "wide/seed1", "the other 2 parts"]
    assert whole.text.splitlines()[-1].startswith("all 4 parts: ")
    assert (left.seconds, whole.seconds) == (120.0, 240.0)
    done = plan_study(study, only=["small"], out="one")
    assert done.text.splitlines()[-1] == "nothing is left to train"
    assert (done.seconds, done.peak_bytes, done.fits) == (None, None, None)


def test_a_dry_run_reads_the_earlier_results_and_the_folder(study, capsys):
    run_study(study, "one", only=["small"])
    capsys.readouterr()
    assert main(["study", study, "--dry-run", "--only", "small", "--out", "one"]) == 0
    assert "small/seed0: finished in one" in capsys.readouterr().out
    assert main(["study", study, "--dry-run", "--finished", "gone.json", "--out", "new"]) == 2
    assert "No file at gone.json" in capsys.readouterr().err
    assert not Path("new").exists()

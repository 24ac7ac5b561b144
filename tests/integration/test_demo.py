"""The demo: on the tiny target in seconds, and as it is on SmolLM2 in the slow suite."""

import json

import pytest
from sae_lens import SAE

from sae_lens_contrastive import demo
from sae_lens_contrastive.training import train as train_module
from sae_lens_contrastive.unlearning import evaluate as evaluate_module

ROW_KEYS = {"variant", "seed", "forget_domain", "unlearning_score", "held_out", "cause_of_zero", "seconds"}
FIGURES = ("unlearning_scores.png", "training_losses.png", "feature_thresholds.png")


def check_outputs(out):
    rows = json.loads((out / "results.json").read_text())
    assert [row["variant"] for row in rows] == ["baseline", "run5"]
    for row in rows:
        assert set(row) >= ROW_KEYS
        assert set(row["held_out"]) == {"forget_accuracy", "chance", "forgetting", "retain_accuracy", "ci95"}
        assert SAE.load_from_disk(out / "train" / row["variant"] / "sae").cfg.d_sae == row["d_sae"]
    return rows


def test_the_demo_on_the_tiny_target(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "TARGET", "configs/targets/tiny.yaml")
    monkeypatch.setattr(demo, "SPEC", "evals/world_facts_tiny.yaml")
    demo.run_demo(tmp_path / "demo")
    first = check_outputs(tmp_path / "demo")
    assert all((tmp_path / "demo" / name).stat().st_size > 5000 for name in FIGURES[:2])
    assert "run5" in (said := capsys.readouterr().out)
    assert str(tmp_path / "demo" / "report.html") in said
    assert 'id="features"' in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")

    for module, work in ((train_module, "load_model"), (evaluate_module, "HookData")):
        monkeypatch.setattr(module, work, lambda *_args, **_kwargs: pytest.fail("nothing was left to do"))
    assert demo.run_demo(tmp_path / "demo") == first


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_forgets_on_smollm2(tmp_path):
    demo.run_demo(tmp_path / "demo")
    for row in check_outputs(tmp_path / "demo"):
        assert row["unlearning_score"] > 0
        assert row["setting"]["retain_accuracy"] >= 0.99
    assert all((tmp_path / "demo" / name).stat().st_size > 10_000 for name in FIGURES)

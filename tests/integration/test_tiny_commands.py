"""The commands of the README on the tiny Gemma-2 and the embedded benchmark, start to finish."""

import json
from pathlib import Path

import pytest

from sae_lens_contrastive.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    variants = [str(ROOT / f"configs/variants/{name}.yaml") for name in ("baseline", "contrastive")]
    target = str(ROOT / "configs/targets/tiny.yaml")
    assert main(["train", target, *variants, "--set", "training.training_tokens=4096", "--out", str(out)]) == 0
    return out


def test_train_eval_and_report(trained, tmp_path, capsys):
    out = tmp_path / "eval"
    spec = str(ROOT / "evals/world_facts_tiny.yaml")
    saes = [argument for name in ("baseline", "contrastive") for argument in ("--sae", str(trained / name / "sae"))]
    assert main(["eval", spec, *saes, "--out", str(out)]) == 0
    assert "baseline" in capsys.readouterr().out
    rows = json.loads((out / "results.json").read_text())
    assert [row["variant"] for row in rows] == ["baseline", "contrastive"]
    for row in rows:
        assert {"variant", "seed", "forget_domain", "unlearning_score", "held_out", "cause_of_zero", "seconds"} <= set(
            row
        )
        assert set(row["held_out"]) == {"forget_accuracy", "chance", "forgetting", "retain_accuracy", "ci95"}
        assert (row["unlearning_score"] == 0) == (row["cause_of_zero"] is not None)
    assert [path.name for path in sorted((out / "examples").iterdir())] == ["baseline.json", "contrastive.json"]
    assert main(["report", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="features"' in page
    assert 'id="questions"' in page
    assert "forget_domain: countries" in page
    assert (out / "unlearning_scores.png").stat().st_size > 5000
    assert main(["report", str(trained)]) == 0
    assert (trained / "training_losses.png").stat().st_size > 5000


def test_a_second_eval_uses_what_is_there(trained, tmp_path, monkeypatch):
    out = tmp_path / "eval"
    command = [
        "eval",
        str(ROOT / "evals/world_facts_tiny.yaml"),
        "--sae",
        str(trained / "baseline/sae"),
        "--out",
        str(out),
    ]
    assert main(command) == 0
    first = (out / "results.json").read_bytes()
    from sae_lens_contrastive.unlearning import evaluate as evaluate_module

    monkeypatch.setattr(evaluate_module, "HookData", lambda *_args, **_kwargs: pytest.fail("nothing was left to do"))
    assert main(command) == 0
    assert (out / "results.json").read_bytes() == first

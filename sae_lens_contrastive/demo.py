"""The whole path on the embedded model: train two SAEs, clamp the forget features, see what was forgotten."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_lens_contrastive.config import load_yaml, parse_config
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.packaged import packaged_file
from sae_lens_contrastive.report import load_results, results_table, write_figures, write_page
from sae_lens_contrastive.runs import RESULTS_FILE, claim_folder
from sae_lens_contrastive.training import RunConfig, load_summary, resolve_runs, train_runs
from sae_lens_contrastive.training.plan import Plan, plan_runs
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, check_spec, evaluate_saes
from sae_lens_contrastive.unlearning.plan import plan_evaluation

TARGET = "configs/targets/smollm2.yaml"
VARIANTS = ("configs/variants/baseline.yaml", "configs/variants/run5.yaml")
SPEC = "evals/world_facts_smollm2.yaml"
_SUMMARY_KEYS = ("d_sae", "explained_variance", "l0", "dead_features", "train_seconds")


def plan_demo() -> Plan:
    """What the demo trains and evaluates; loads no weights and writes nothing."""
    runs, spec = _runs_and_spec()
    training, evaluation = plan_runs(runs), plan_evaluation(spec, check_spec(spec))
    return replace(training, text=f"{training.text}\n\nevaluation:\n{evaluation.text}")


def run_demo(out: Path | str) -> list[dict[str, Any]]:
    """Run the demo into `out` and return the rows of its `results.json`.

    Finished parts are kept, so a second call continues where the first ended. Raises `UserError` if `out` holds
    another run or the embedded model is not installed.
    """
    start = time.perf_counter()
    out = Path(out)
    runs, spec = _runs_and_spec()
    config = {"runs": [run.model_dump(mode="json") for run in runs], "spec": spec.model_dump(mode="json")}
    claim_folder(out, "demo", config)
    folders = train_runs(runs, out / "train", renew=True)
    saes = {
        run.variant: SaeUnderTest(variant=run.variant, seed=run.seed, path=folder / "sae")
        for run, folder in zip(runs, folders, strict=True)
    }
    results = evaluate_saes(spec, saes, out / "eval")
    rows = [
        {**result.model_dump(mode="json"), **{key: load_summary(folder)[key] for key in _SUMMARY_KEYS}}
        for result, folder in zip(results, folders, strict=True)
    ]
    write_json(out / RESULTS_FILE, rows)
    saved = load_results(out)
    figures = write_figures(saved, out)
    page = write_page(saved, out)
    print(f"\nForgetting {spec.forget_domain}, keeping {', '.join(results[0].retain_accuracy_by_domain)}\n")
    print(results_table(rows))
    print(f"\n{time.perf_counter() - start:.0f} s. Results: {out / RESULTS_FILE}")
    print(f"Figures: {', '.join(str(figure) for figure in figures)}")
    print(f"All of it on one page: {page}")
    print(f"SAEs, loadable with SAE.load_from_disk: {', '.join(str(folder / 'sae') for folder in folders)}")
    return rows


def _runs_and_spec() -> tuple[list[RunConfig], EvalSpec]:
    runs = resolve_runs(packaged_file(TARGET), [packaged_file(variant) for variant in VARIANTS])
    return runs, parse_config(EvalSpec, load_yaml(packaged_file(SPEC)), SPEC)

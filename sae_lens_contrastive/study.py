"""A study: variants under several settings and seeds on one target, evaluated on the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from sae_lens_contrastive.config import StrictModel, load_yaml, merge, parse_config
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.models import load_model
from sae_lens_contrastive.report import load_results, results_table, write_figures
from sae_lens_contrastive.report.results import RESULTS_FILE
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.training import RunConfig, load_summary, resolve_runs, train_runs
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, evaluate_saes

SUMMARY_KEYS = (
    "target",
    "layer",
    "architecture",
    "d_sae",
    "explained_variance",
    "l0",
    "dead_features",
    "pruned_features",
    "train_seconds",
)


class StudySetting(StrictModel):
    """One way to run a list of variants."""

    description: str = ""
    """What the setting is for."""
    variants: list[str] = Field(min_length=1)
    """Variant files, relative to the study file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Changes to every run of the setting, as in a variant file."""


class StudySpec(StrictModel):
    """What a study trains and how it is evaluated."""

    target: str
    """Target file, relative to the study file."""
    spec: str
    """Evaluation specification, relative to the study file."""
    seeds: list[int] = Field(min_length=1)
    """Seeds; every variant is trained once with each."""
    settings: dict[str, StudySetting] = Field(min_length=1)
    """Settings by name."""

    @field_validator("seeds")
    @classmethod
    def _are_distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ConfigError(f"{seeds} must be distinct seeds of 0 or more.")
        return seeds


def run_study(
    study_file: Path | str, out: Path | str, overrides: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run a study into `out` and return the rows of its `results.json`.

    Variants of one setting and seed are trained side by side. Finished parts are kept, so a second call continues
    where the first ended. `overrides` change keys of the study file. Everything is checked before the model loads.
    Raises `UserError` for a file that is missing or wrong, and if `out` holds another study.
    """
    study_file, out = Path(study_file), Path(out)
    study = parse_config(StudySpec, merge(load_yaml(study_file), overrides or {}), source=str(study_file))
    near = study_file.parent
    spec = parse_config(EvalSpec, load_yaml(near / study.spec), source=study.spec)
    runs = _runs(study, near)
    config = {
        "runs": {place: [run.model_dump(mode="json") for run in group] for place, group in runs.items()},
        "spec": spec.model_dump(mode="json"),
    }
    claim_folder(out, "study", config)
    model = load_model(spec.model, device=spec.device, dtype=spec.dtype)
    rows: dict[str, list[dict[str, Any]]] = {place: [] for place in runs}
    for seed in study.seeds:
        # Seed by seed, so that a study that is stopped has a whole table of the seeds that are done.
        places = [place for place in runs if place.endswith(f"/seed{seed}")]
        rows |= _of_one_seed({place: runs[place] for place in places}, spec, out, model)
        ordered = [row for place in rows for row in rows[place]]
        write_json(out / RESULTS_FILE, ordered)
        print(f"\nAfter seed {seed}, forgetting {spec.forget_domain}\n\n{results_table(ordered)}\n")
    for figure in write_figures(load_results(out), out):
        print(figure)
    return [row for place in rows for row in rows[place]]


def _of_one_seed(
    runs: dict[str, list[RunConfig]], spec: EvalSpec, out: Path, model: Any
) -> dict[str, list[dict[str, Any]]]:
    """Train and evaluate the runs of one seed; rows by their folder."""
    trained: dict[str, tuple[str, RunConfig, Path]] = {}
    for place, group in runs.items():
        # Activations do not depend on the setting.
        folders = train_runs(group, out / place / "train", _model_for(group, spec, model), out / "activations")
        for run, folder in zip(group, folders, strict=True):
            trained[f"{place.replace('/', '-')}-{run.variant}"] = (place, run, folder)
    saes = {
        name: SaeUnderTest(variant=run.variant, seed=run.seed, path=folder / "sae")
        for name, (_, run, folder) in trained.items()
    }
    rows: dict[str, list[dict[str, Any]]] = {place: [] for place in runs}
    results = evaluate_saes(spec, saes, out / "eval", model)
    for result, (place, _, folder) in zip(results, trained.values(), strict=True):
        summary = load_summary(folder)
        row = {"study_setting": place.split("/")[0], **result.model_dump(mode="json")}
        rows[place].append({**row, **{key: summary[key] for key in SUMMARY_KEYS}})
    return rows


def _runs(study: StudySpec, near: Path) -> dict[str, list[RunConfig]]:
    """The runs of every setting and seed, by their folder."""
    return {
        f"{name}/seed{seed}": resolve_runs(
            near / study.target,
            [near / variant for variant in setting.variants],
            merge(setting.overrides, {"seed": seed}),
        )
        for name, setting in study.settings.items()
        for seed in study.seeds
    }


def _model_for(runs: list[RunConfig], spec: EvalSpec, model: Any) -> Any:
    """The loaded model, if it is the one that the runs train on."""
    same = all((run.model, run.dtype, run.device) == (spec.model, spec.dtype, spec.device) for run in runs)
    return model if same else None

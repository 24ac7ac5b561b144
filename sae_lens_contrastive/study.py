"""A study: variants under several settings and seeds on one target, evaluated on the same questions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from sae_lens_contrastive.config import StrictModel, load_yaml, merge, parse_config
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.models import load_model
from sae_lens_contrastive.report import load_results, results_table, write_figures
from sae_lens_contrastive.report.results import RESULTS_FILE
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.training import RunConfig, load_summary, resolve_runs, train_runs
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, check_spec, evaluate_saes
from sae_lens_contrastive.unlearning.shared import HookData

_PLAIN = "plain"

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
    seeds: list[int] | None = Field(default=None, min_length=1)
    """Those of the study's seeds that the setting has; None means all."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """Changes to the evaluation specification, such as another forget domain."""
    evaluations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further evaluations of the same SAEs: changes to the setting's specification, by a name that is added to the
    variant's in the results, as in `baseline, gated`."""


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

    @model_validator(mode="after")
    def _settings_have_known_seeds_and_folder_names(self) -> StudySpec:
        for name, setting in self.settings.items():
            if wrong := [
                each for each in setting.evaluations if not re.fullmatch(r"\w[\w.-]*", each) or each == _PLAIN
            ]:
                raise ConfigError(
                    f"settings.{name}.evaluations: {wrong[0]!r} cannot name one: it becomes a folder. Use letters, "
                    f"digits and '_', '.', '-', and not {_PLAIN!r}."
                )
            if unknown := set(setting.seeds or ()) - set(self.seeds):
                raise ConfigError(f"settings.{name}.seeds has {sorted(unknown)}, which are not in seeds {self.seeds}.")
        return self


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
    parts = _parts(study, near, load_yaml(near / study.spec))
    claim_folder(out, "study", {place: part.config() for place, part in parts.items()})
    model = load_model(spec.model, device=spec.device, dtype=spec.dtype)
    rows: dict[str, list[dict[str, Any]]] = {place: [] for place in parts}
    shared: dict[tuple[str, str], HookData] = {}
    for seed in study.seeds:
        # Seed by seed, so that a study that is stopped has a whole table of the seeds that are done.
        for place, part in parts.items():
            if part.seed == seed:
                rows[place] = _rows(place, part, out, model, shared)
        ordered = [row for place in rows for row in rows[place]]
        write_json(out / RESULTS_FILE, ordered)
        print(f"\nAfter seed {seed}\n\n{results_table(ordered)}\n")
    for figure in write_figures(load_results(out), out):
        print(figure)
    return [row for place in rows for row in rows[place]]


@dataclass(frozen=True)
class _Part:
    """One setting with one seed."""

    setting: str
    seed: int
    runs: list[RunConfig]
    evaluations: dict[str, EvalSpec]
    """Specifications by what is added to a variant's name; the first adds nothing."""

    def config(self) -> dict[str, Any]:
        """What its results depend on."""
        return {
            "runs": [run.model_dump(mode="json") for run in self.runs],
            "evaluations": {name: spec.model_dump(mode="json") for name, spec in self.evaluations.items()},
        }


def _parts(study: StudySpec, near: Path, spec: dict[str, Any]) -> dict[str, _Part]:
    """Every setting with each of its seeds, by folder; checks all that can be checked without the model."""
    parts = {}
    base = parse_config(EvalSpec, spec, source=study.spec)
    for name, setting in study.settings.items():
        evaluations = {
            evaluation: parse_config(EvalSpec, merge(spec, setting.spec, changes), source=f"{study.spec}, {name}")
            for evaluation, changes in {"": {}, **setting.evaluations}.items()
        }
        for each in evaluations.values():
            if (each.model, each.dtype, each.device) != (base.model, base.dtype, base.device):
                raise ConfigError(
                    f"settings.{name}: a setting cannot change model, dtype or device of the evaluation; the study "
                    f"loads {base.model!r} once. Write another study."
                )
            check_spec(each)
        for seed in setting.seeds or study.seeds:
            variants = [near / variant for variant in setting.variants]
            runs = resolve_runs(near / study.target, variants, merge(setting.overrides, {"seed": seed}))
            parts[f"{name}/seed{seed}"] = _Part(name, seed, runs, evaluations)
    return parts


def _rows(
    place: str, part: _Part, out: Path, model: Any, shared: dict[tuple[str, str], HookData]
) -> list[dict[str, Any]]:
    """Train and evaluate the runs of one part."""
    # Activations do not depend on the setting.
    given = _model_for(part, model)
    folders = train_runs(part.runs, out / place / "train", given, out / "activations")
    rows = []
    for evaluation, spec in part.evaluations.items():
        suffix = f", {evaluation}" if evaluation else ""
        saes = {
            run.variant: SaeUnderTest(variant=run.variant + suffix, seed=run.seed, path=folder / "sae")
            for run, folder in zip(part.runs, folders, strict=True)
        }
        results = evaluate_saes(spec, saes, out / place / "eval" / (evaluation or _PLAIN), model, shared)
        for result, folder in zip(results, folders, strict=True):
            summary = load_summary(folder)
            row = {"study_setting": part.setting, **result.model_dump(mode="json")}
            rows.append({**row, **{key: summary[key] for key in SUMMARY_KEYS}})
    return rows


def _model_for(part: _Part, model: Any) -> Any:
    """The loaded model, if it is the one that the runs train on."""
    spec = part.evaluations[""]
    same = all((run.model, run.dtype, run.device) == (spec.model, spec.dtype, spec.device) for run in part.runs)
    return model if same else None

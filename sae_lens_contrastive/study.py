"""A study: variants under several settings and seeds on one target, evaluated on the same questions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_lens_contrastive.config import load_yaml, merge, parse_config
from sae_lens_contrastive.errors import BusyFolderError, ConfigError, UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.models import load_model
from sae_lens_contrastive.report import load_results, results_table, write_figures, write_page
from sae_lens_contrastive.report.saved_rows import checked_rows
from sae_lens_contrastive.runs import RESULTS_FILE, claim_folder, hold_folder
from sae_lens_contrastive.study_spec import PLAIN, StudySpec
from sae_lens_contrastive.training import RunConfig, input_key, load_summary, resolve_runs, train_runs
from sae_lens_contrastive.training.plan import Plan, duration_text, one_after_another, plan_runs, size_text
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, check_spec, evaluate_saes
from sae_lens_contrastive.unlearning.shared import UNEDITED_FOLDER, HookData
from sae_lens_contrastive.versions import package_versions

ROWS_FILE = "rows.json"
"""Rows of a finished part, in its folder `<setting>/seed<k>`."""

PART_KEY = "part_sha256"
"""What says in a row of `results.json` of which part it is: the SHA-256 of all that the part depends on."""

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


def run_study(
    study_file: Path | str,
    out: Path | str,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    finished: Path | str | None = None,
) -> list[dict[str, Any]]:
    """Run a study into `out` and return the rows of its `results.json`.

    Variants of one setting and seed are trained side by side. A part, which is a setting with a seed, is finished once
    its folder `<setting>/seed<k>` has `rows.json`: a second call continues where the first ended, and needs nothing but
    that file, so that parts can be run on several machines and brought together. `only` names the settings or parts to
    run now, as in `countries` or `countries/seed0`; finished parts are in the results anyway. `finished` is the
    `results.json` of an earlier run, whose parts are taken over where nothing that they depend on has changed.
    `overrides` change keys of the study file. Everything is checked before the model loads. Raises `UserError` for a
    file that is missing or wrong, a part that the study does not have, and if `out` holds another study; and, once all
    else is done and written, for parts that another process is at work on.
    """
    study_file, out = Path(study_file), Path(out)
    study = parse_config(StudySpec, merge(load_yaml(study_file), overrides or {}), source=str(study_file))
    near = study_file.parent
    spec = parse_config(EvalSpec, load_yaml(near / study.spec), source=study.spec)
    parts = _parts(study, near, load_yaml(near / study.spec))
    wanted = _wanted(parts, only)
    earlier = {} if finished is None else _earlier(Path(finished), parts)
    # Several processes may run parts of one study.
    claim_folder(out, "study", {place: part.config() for place, part in parts.items()}, alone=False)
    rows = _finished_parts(out, parts)
    taken = earlier.keys() - rows.keys()
    if finished is not None:
        print(f"{len(taken)} of {len(parts)} parts taken over from {finished}; {len(rows)} were finished before")
    for place in taken:
        _finish(out / place, parts[place], earlier[place])
    rows = earlier | rows
    pending = {place: part for place, part in parts.items() if place in wanted and place not in rows}
    model = load_model(spec.model, device=spec.device, dtype=spec.dtype) if pending else None
    shared: dict[tuple[str, str], HookData] = {}
    for seed in study.seeds:
        # Seed by seed: a study that is stopped has whole tables. Other processes may finish parts meanwhile.
        for place, part in pending.items():
            if part.seed == seed and place not in rows:
                try:
                    hold_folder(out / place)
                except BusyFolderError:
                    continue
                _finish(out / place, part, _rows(place, part, out, model, shared))
                rows = _finished_parts(out, parts)
                write_json(out / RESULTS_FILE, _in_order(parts, rows))
    rows = _finished_parts(out, parts)
    busy = [place for place in pending if place not in rows]
    ordered = _in_order(parts, rows)
    if ordered:
        write_json(out / RESULTS_FILE, ordered)
        print(f"\n{len(rows)} of {len(parts)} parts\n\n{results_table(ordered)}\n")
        results = load_results(out)
        print(*write_figures(results, out), write_page(results, out), sep="\n")
    if busy:
        raise UserError(
            f"Another process is at work on {', '.join(busy)} in {out}; all else is done. Wait until it has ended, "
            "and run the same command again to have these parts in the results."
        )
    return ordered


def plan_study(
    study_file: Path | str,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    finished: Path | str | None = None,
    out: Path | str | None = None,
) -> Plan:
    """What a study, or some parts of it, trains; loads no weights, writes nothing and needs no device.

    Parts that are finished in `out`, or would be taken over from `finished`, are named and not counted. Raises
    `UserError` for a file that is missing or wrong and for a part that the study does not have.
    """
    study_file = Path(study_file)
    study = parse_config(StudySpec, merge(load_yaml(study_file), overrides or {}), source=str(study_file))
    parts = _parts(study, study_file.parent, load_yaml(study_file.parent / study.spec), any_device=True)
    wanted = _wanted(parts, only)
    done = {} if finished is None else dict.fromkeys(_earlier(Path(finished), parts), f"taken over from {finished}")
    done |= {} if out is None else dict.fromkeys(_finished_parts(Path(out), parts), f"finished in {out}")
    done = {place: how for place, how in done.items() if place in wanted}
    plans = {place: plan_runs(part.runs) for place, part in parts.items() if place in wanted and place not in done}
    lines = [f"{place}: {done[place]}" for place in parts if place in done]
    if not plans:
        return Plan("\n".join([*lines, "nothing is left to train"]))
    lines += [
        f"{place}: {', '.join(run.variant for run in parts[place].runs)}; {duration_text(plan.seconds)} of training, "
        f"{size_text(plan.peak_bytes or 0.0)} at most{'' if plan.fits else ': DOES NOT FIT'}; "
        f"{len(parts[place].variants)} evaluations"
        for place, plan in plans.items()
    ]
    whole = one_after_another(list(plans.values()), "")
    which = "the other" if done else "all"
    lines.append(f"{which} {len(plans)} parts: {duration_text(whole.seconds)} of training; evaluating comes on top")
    return replace(whole, text="\n".join(lines))


@dataclass(frozen=True)
class _Part:
    """One setting with one seed."""

    setting: str
    seed: int
    runs: list[RunConfig]
    evaluations: dict[str, EvalSpec]
    """Specifications by what is added to a variant's name; the first adds nothing."""
    digest: str
    """SHA-256 of its configuration, of the texts and questions that it names and of the packages that compute it."""

    @property
    def variants(self) -> list[str]:
        """What its rows are called, in their order, once it is finished."""
        return [_variant(run, evaluation) for evaluation in self.evaluations for run in self.runs]

    def is_whole(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether it is finished with these rows: a digest does not say what an evaluation was called."""
        return [row["variant"] for row in rows] == self.variants

    def config(self) -> dict[str, Any]:
        """What its results depend on."""
        return {
            "runs": [run.model_dump(mode="json") for run in self.runs],
            "evaluations": {name: spec.model_dump(mode="json") for name, spec in self.evaluations.items()},
        }


def _parts(study: StudySpec, near: Path, spec: dict[str, Any], *, any_device: bool = False) -> dict[str, _Part]:
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
        inputs = [check_spec(each, any_device=any_device).digest for each in evaluations.values()]
        for seed in setting.seeds or study.seeds:
            variants = [near / variant for variant in setting.variants]
            overrides = merge(setting.overrides, {"seed": seed})
            runs = resolve_runs(near / study.target, variants, overrides, any_device=any_device)
            depends = [[run.model_dump(mode="json"), input_key(run)] for run in runs], inputs, package_versions()
            digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
            parts[f"{name}/seed{seed}"] = _Part(name, seed, runs, evaluations, digest)
    return parts


def _wanted(parts: Mapping[str, _Part], only: Sequence[str]) -> set[str]:
    settings = dict.fromkeys(part.setting for part in parts.values())
    for name in only:
        if name not in parts and name not in settings:
            raise UserError(
                f"The study has no part {name!r}. Name a setting, one of {', '.join(settings)}, or one with a seed, "
                f"such as {next(iter(parts))}."
            )
    return {place for place, part in parts.items() if not only or place in only or part.setting in only}


def _finished_parts(out: Path, parts: Mapping[str, _Part]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each part that is finished, by whichever process, unless what they were made from has changed."""
    rows = {}
    for place, part in parts.items():
        if (file := out / place / ROWS_FILE).is_file():
            saved = read_json(file)
            if not isinstance(saved, dict) or saved.keys() != {"part", "rows"}:
                raise UserError(f"{file} is not what a study wrote. Delete it to run the part again.")
            if saved["part"] == part.digest and part.is_whole(found := checked_rows(saved["rows"], file)):
                rows[place] = found
    return rows


def _finish(folder: Path, part: _Part, rows: list[dict[str, Any]]) -> None:
    write_json(folder / ROWS_FILE, {"part": part.digest, "rows": rows})


def _earlier(results: Path, parts: Mapping[str, _Part]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the parts that are whole in the results of an earlier run and would be run alike today."""
    rows = checked_rows(read_json(results), results)
    found = {
        place: [
            {key: value for key, value in row.items() if key != PART_KEY}
            for row in rows
            if row.get("study_setting") == part.setting and row.get(PART_KEY) == part.digest
        ]
        for place, part in parts.items()
    }
    return {place: found[place] for place, part in parts.items() if part.is_whole(found[place])}


def _in_order(parts: Mapping[str, _Part], rows: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{**row, PART_KEY: part.digest} for place, part in parts.items() for row in rows.get(place, ())]


def _rows(
    place: str, part: _Part, out: Path, model: Any, shared: dict[tuple[str, str], HookData]
) -> list[dict[str, Any]]:
    """Train and evaluate the runs of one part."""
    # Activations do not depend on the setting.
    given = _model_for(part, model)
    folders = train_runs(part.runs, out / place / "train", given, out / "activations", renew=True)
    rows = []
    for evaluation, spec in part.evaluations.items():
        saes = {
            run.variant: SaeUnderTest(variant=_variant(run, evaluation), seed=run.seed, path=folder / "sae")
            for run, folder in zip(part.runs, folders, strict=True)
        }
        evaluated = out / place / "eval" / (evaluation or PLAIN)
        results = evaluate_saes(spec, saes, evaluated, model, shared, out / UNEDITED_FOLDER)
        for result, folder in zip(results, folders, strict=True):
            summary = load_summary(folder)
            row = {"study_setting": part.setting, **result.model_dump(mode="json")}
            rows.append({**row, **{key: summary[key] for key in SUMMARY_KEYS}})
    return rows


def _variant(run: RunConfig, evaluation: str) -> str:
    return f"{run.variant}, {evaluation}" if evaluation else run.variant


def _model_for(part: _Part, model: Any) -> Any:
    """The loaded model, if it is the one that the runs train on."""
    spec = part.evaluations[""]
    same = all((run.model, run.dtype, run.device) == (spec.model, spec.dtype, spec.device) for run in part.runs)
    return model if same else None

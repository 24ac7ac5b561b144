"""Evaluate SAEs: everything is checked first, what they share is computed once, what is done is not done
again."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import usable_folder, write_json
from sae_lens_contrastive.models import check_hook, load_model, model_digest
from sae_lens_contrastive.saved_examples import EXAMPLES_FOLDER
from sae_lens_contrastive.unlearning.answer_store import AnswerStore
from sae_lens_contrastive.unlearning.ensemble import Ensemble
from sae_lens_contrastive.unlearning.examples import evaluation_examples
from sae_lens_contrastive.unlearning.held_out import held_out_report, unedited_report
from sae_lens_contrastive.unlearning.output import (
    MemberFeatures,
    Provenance,
    SettingResult,
    UnlearningResult,
)
from sae_lens_contrastive.unlearning.saved_results import (
    gate_threshold,
    save_chosen_edit,
    save_result,
    save_results,
    saved_result,
)
from sae_lens_contrastive.unlearning.score import cause_of_zero, choose_setting, n_passing, unlearning_score
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.spec import EvalInputs, EvalSpec, check_spec
from sae_lens_contrastive.unlearning.subject import SaeUnderTest, check_sae, load_sae
from sae_lens_contrastive.unlearning.sweep import SweptSetting, sweep
from sae_lens_contrastive.versions import package_versions

ANSWERS_FOLDER = "answers"

_RESERVED_NAMES = {"results", "run"}


def evaluate_saes(
    spec: EvalSpec,
    saes: Mapping[str, SaeUnderTest],
    out: Path | None,
    model: Any = None,
    shared: dict[tuple[str, str], HookData] | None = None,
    cache: Path | None = None,
) -> list[UnlearningResult]:
    """Evaluate SAEs and return their results in the given order.

    With `out`, each result is saved as `<name>.json` as soon as it is there, in SAEBench's format as
    `saebench/<name>_eval_results.json`, the chosen edit as `forget_edits/<name>.json` for `apply_forget_edit` (not of
    an intervention of one's own that is fitted on retain text), features and answers to look at as
    `examples/<name>.json`, and all results as `results.json`, beside those of SAEs that were evaluated there before. A
    saved result is used again if SAE, model, specification, data and package versions are the same. Answers under
    single settings are saved as well, in `answers/<name>.json`, so that a killed evaluation goes on where it stopped.
    `model` spares loading `spec.model`, which it must be; `shared` keeps what SAEs share from one call with this model
    to the next, by specification and hook, and the folder `cache` from one process to another.

    Raises `UserError`, before the model loads, for an input that cannot be read, a folder that cannot be written to and
    an SAE that cannot be loaded or edited or has weights that are not finite; after it, for a hook or width that the
    model lacks.
    """
    _check_names(saes)
    if out is not None:
        usable_folder(out, "--out")
    if cache is not None:
        usable_folder(cache, "--cache")
    inputs = check_spec(spec)
    facts = {name: check_sae(name, subject, spec.device) for name, subject in saes.items()}
    for name, fact in facts.items():
        _check_random_baseline(name, fact.d_sae, spec)
    model = load_model(spec.model, device=spec.device, dtype=spec.dtype) if model is None else model
    for name in saes:
        check_hook(model, facts[name].hook_name, facts[name].d_in)
    versions = package_versions()
    model_sha256 = model_digest(model)
    results: dict[str, UnlearningResult] = {}
    pending: dict[str, Provenance] = {}
    for name, subject in saes.items():
        provenance = Provenance(
            sae_sha256=facts[name].sha256, model_sha256=model_sha256, spec_sha256=inputs.digest, versions=versions
        )
        saved = None if out is None else saved_result(out, name, subject, provenance)
        if saved is None:
            pending[name] = provenance
        else:
            results[name] = saved
    for hook_name in dict.fromkeys(facts[name].hook_name for name in pending):
        key = (inputs.digest, hook_name)
        data = (shared or {}).get(key) or HookData(model, hook_name, spec, inputs, cache)
        if shared is not None:
            shared[key] = data
        for name, provenance in pending.items():
            if facts[name].hook_name == hook_name:
                results[name] = _evaluate(name, saes[name], data, provenance, out)
                if out is not None:
                    save_result(out, results[name], spec, saes[name], facts[name])
    ordered = [results[name] for name in saes]
    if out is not None:
        save_results(out, ordered)
    return ordered


def selection_data(
    model: Any, hook_name: str, spec: EvalSpec, inputs: EvalInputs, cache: Path | None = None
) -> HookData:
    """What SAEs of one hook share when settings are only chosen: held-out and near questions are never put.

    Raises `UserError` if the model knows fewer than `min_known_questions` on either side.
    """
    select_only = replace(
        inputs,
        forget_questions={"select": inputs.forget_questions["select"]},
        retain_questions={"select": inputs.retain_questions["select"]},
        near_questions=[],
    )
    data = HookData(model, hook_name, spec, select_only, cache)
    for side in ("forget", "retain"):
        evaluator = data.evaluators[f"{side}_select"]
        if len(evaluator.known) < spec.min_known_questions:
            raise UserError(
                f"The model knows {len(evaluator.known)} of the {evaluator.asked} {side} questions of the split "
                f"'select', fewer than min_known_questions ({spec.min_known_questions}). Choose a model that knows "
                "them or other questions."
            )
    return data


def select_frontier(name: str, subject: SaeUnderTest, data: HookData) -> list[SettingResult]:
    """Every setting of the specification on the `select` questions, and nothing else, for one SAE.

    Raises `UserError` as `evaluate_saes` does.
    """
    facts = check_sae(name, subject, data.spec.device)
    check_hook(data.model, facts.hook_name, facts.d_in)
    sae = load_sae(name, subject, data.spec.device)
    return [swept.result for swept in sweep(sae, data, AnswerStore(None, {}), title=name)]


def _evaluate(
    name: str, subject: SaeUnderTest, data: HookData, provenance: Provenance, out: Path | None
) -> UnlearningResult:
    started = time.perf_counter()
    gate = data.spec.retain_gate
    swept: list[SweptSetting] = []
    sae: Any = None
    if data.knows_enough:
        sae = load_sae(name, subject, data.spec.device)
        store = AnswerStore(None if out is None else out / ANSWERS_FOLDER / f"{name}.json", _identity(data, provenance))
        swept = sweep(sae, data, store, title=name)
    frontier = [each.result for each in swept]
    setting = choose_setting(frontier, gate, data.chance)
    chosen = None if setting is None else swept[frontier.index(setting)]
    report = unedited_report(data) if chosen is None else held_out_report(sae, chosen, data, title=name)
    features = () if chosen is None else chosen.edit.features
    if out is not None:
        save_chosen_edit(out, name, sae, chosen, data)
    result = UnlearningResult(
        name=name,
        variant=subject.variant,
        seed=subject.seed,
        forget_domain=data.spec.forget_domain,
        unlearning_score=unlearning_score(frontier, gate),
        held_out=report.held_out,
        cause_of_zero=cause_of_zero(frontier, gate) if data.knows_enough else "unknown_questions",
        retain_gate=gate,
        n_settings_passing=n_passing(frontier, gate),
        seconds=round(time.perf_counter() - started, 2),
        below_chance=report.below_chance,
        setting=setting,
        gate_threshold=None if chosen is None else gate_threshold(chosen),
        features=list(features),
        members=_by_member(subject, sae, features),
        retain_accuracy_by_domain=report.retain_accuracy_by_domain,
        near_accuracy=report.near_accuracy,
        near_accuracy_by_domain=report.near_accuracy_by_domain,
        measures=report.measures,
        known=data.known_counts,
        frontier=frontier,
        provenance=provenance,
    )
    if sae is not None and out is not None:
        # After the clock was read: they are no part of what is measured.
        edit = None if chosen is None else chosen.edit
        examples = evaluation_examples(sae, edit, data, variant=subject.variant, seed=subject.seed)
        write_json(out / EXAMPLES_FOLDER / f"{name}.json", examples.model_dump())
    return result


def _identity(data: HookData, provenance: Provenance) -> dict[str, Any]:
    """What the answers to an edit depend on beside the edit; the settings that are swept have no part in it.

    Answers are saved by the place of their question among the known ones.
    """
    known = {name: [question.id for question in each.known] for name, each in data.evaluators.items()}
    spec = data.spec.model_dump(include={"prompt", "edit_special_tokens", "max_questions", "seed", "dtype", "device"})
    depends = provenance.model_dump(exclude={"spec_sha256"})
    return {
        **depends,
        "spec": spec,
        "questions_sha256": data.inputs.questions_digest,
        "known_sha256": hashlib.sha256(json.dumps(known).encode()).hexdigest(),
        "hook_name": data.hook_name,
    }


def _by_member(subject: SaeUnderTest, sae: Any, features: Sequence[int]) -> list[MemberFeatures]:
    own = sae.by_member(features) if isinstance(sae, Ensemble) else [[] for _ in subject.members]
    return [MemberFeatures(path=str(path), features=f) for path, f in zip(subject.members, own, strict=True)]


def _check_names(saes: Mapping[str, SaeUnderTest]) -> None:
    if not saes:
        raise UserError("There is no SAE to evaluate. Give at least one.")
    for name in saes:
        if not re.fullmatch(r"\w[\w.+-]*", name) or name in _RESERVED_NAMES:
            raise UserError(
                f"{name!r} cannot name an SAE: it becomes a file name. Use letters, digits and "
                f"'_', '.', '+', '-', and none of {', '.join(sorted(_RESERVED_NAMES))}."
            )


def _check_random_baseline(name: str, d_sae: int, spec: EvalSpec) -> None:
    if spec.measures.random_baseline is not None and 2 * max(spec.n_features) > d_sae:
        raise UserError(
            f"SAE {name!r} has {d_sae} features, too few to set {max(spec.n_features)} random ones beside as many "
            "selected ones. Give smaller n_features, or measures: {random_baseline: null}."
        )

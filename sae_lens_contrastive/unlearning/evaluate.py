"""Evaluate SAEs: everything is checked first, what they share is computed once, what is done is not done
again."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sae_lens_contrastive.data.questions import Question, domains_of
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.models import check_hook, load_model
from sae_lens_contrastive.unlearning.ensemble import Ensemble
from sae_lens_contrastive.unlearning.output import (
    CauseOfZero,
    HeldOut,
    MemberFeatures,
    Provenance,
    SettingResult,
    UnlearningResult,
)
from sae_lens_contrastive.unlearning.score import (
    bootstrap_ci95,
    cause_of_zero,
    choose_setting,
    forgetting,
    mean_chance,
    unlearning_score,
)
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.spec import EvalInputs, EvalSpec, check_spec
from sae_lens_contrastive.unlearning.subject import SaeUnderTest, check_sae, load_sae
from sae_lens_contrastive.unlearning.sweep import accuracy, build_intervention, sweep

RESULTS_FILE = "results.json"

_PACKAGES = ("sae-lens-contrastive", "sae-lens", "transformer-lens", "transformers", "torch")
_RESERVED_NAMES = {"results", "run"}


def evaluate_saes(
    spec: EvalSpec, saes: Mapping[str, SaeUnderTest], out: Path | None, model: Any = None
) -> list[UnlearningResult]:
    """Evaluate SAEs and return their results in the given order.

    With `out`, each result is saved as `<name>.json` as soon as it is there, and all of them as
    `results.json`; a saved result is used again if SAE, specification, data and package versions are the
    same. `model` spares loading `spec.model`, which it must be.

    Raises `UserError`, before the model loads, for an input that cannot be read, an SAE that cannot be loaded
    or edited or has weights that are not finite; after it, for a hook or width that the model lacks.
    """
    _check_names(saes)
    inputs = check_spec(spec)
    facts = {name: check_sae(name, subject, spec.device) for name, subject in saes.items()}
    versions = {package: version(package) for package in _PACKAGES}
    provenance = {
        name: Provenance(sae_sha256=fact.sha256, spec_sha256=inputs.digest, versions=versions)
        for name, fact in facts.items()
    }
    results = {
        name: saved
        for name, subject in saes.items()
        if out is not None and (saved := _saved(out, name, subject, provenance[name])) is not None
    }
    pending = [name for name in saes if name not in results]
    if pending:
        model = load_model(spec.model, device=spec.device, dtype=spec.dtype) if model is None else model
        for name in pending:
            check_hook(model, facts[name].hook_name, facts[name].d_in)
    for hook_name in dict.fromkeys(facts[name].hook_name for name in pending):
        shared = HookData(model, hook_name, spec, inputs)
        for name in pending:
            if facts[name].hook_name == hook_name:
                results[name] = _evaluate(name, saes[name], shared, provenance[name])
                if out is not None:
                    write_json(out / f"{name}.json", results[name].model_dump())
    ordered = [results[name] for name in saes]
    if out is not None:
        write_json(out / RESULTS_FILE, [result.model_dump() for result in ordered])
    return ordered


def selection_data(model: Any, hook_name: str, spec: EvalSpec, inputs: EvalInputs) -> HookData:
    """What SAEs of one hook share when settings are only chosen: held-out and near questions are never put.

    Raises `UserError` if the model knows fewer than `min_known_questions` on either side.
    """
    select_only = replace(
        inputs,
        forget_questions={"select": inputs.forget_questions["select"]},
        retain_questions={"select": inputs.retain_questions["select"]},
        near_questions=[],
    )
    data = HookData(model, hook_name, spec, select_only)
    for side, evaluator in (("forget", data.forget["select"]), ("retain", data.retain["select"])):
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
    return sweep(sae, data.spec, data.rates(sae), data.forget["select"], data.retain["select"], title=name)


@dataclass(frozen=True)
class _Report:
    """The held-out side of a result."""

    held_out: HeldOut
    below_chance: bool
    retain_accuracy_by_domain: dict[str, float]
    near_accuracy_by_domain: dict[str, float]


def _evaluate(name: str, subject: SaeUnderTest, shared: HookData, provenance: Provenance) -> UnlearningResult:
    started = time.perf_counter()
    spec = shared.spec
    frontier: list[SettingResult] = []
    setting: SettingResult | None = None
    features: tuple[int, ...] = ()
    cause: CauseOfZero | None = "unknown_questions"
    sae: Any = None
    if shared.knows_enough:
        sae = load_sae(name, subject, spec.device)
        rates = shared.rates(sae)
        frontier = sweep(sae, spec, rates, shared.forget["select"], shared.retain["select"], title=name)
        setting = choose_setting(frontier, spec.retain_gate)
        cause = cause_of_zero(frontier, spec.retain_gate)
        if setting is not None:
            features = rates.select(setting.retain_threshold, setting.n_features).features
    report = _unedited(shared) if setting is None else _held_out(sae, features, setting.multiplier, shared)
    return UnlearningResult(
        name=name,
        variant=subject.variant,
        seed=subject.seed,
        forget_domain=spec.forget_domain,
        unlearning_score=unlearning_score(frontier, spec.retain_gate),
        held_out=report.held_out,
        cause_of_zero=cause,
        seconds=round(time.perf_counter() - started, 2),
        below_chance=report.below_chance,
        setting=setting,
        features=list(features),
        members=_by_member(subject, sae, features),
        retain_accuracy_by_domain=report.retain_accuracy_by_domain,
        near_accuracy_by_domain=report.near_accuracy_by_domain,
        known=shared.known_counts,
        frontier=frontier,
        provenance=provenance,
    )


def _held_out(sae: Any, features: Sequence[int], multiplier: float, shared: HookData) -> _Report:
    spec, forget, retain = shared.spec, shared.forget["held_out"], shared.retain["held_out"]
    near = shared.near
    intervention = build_intervention(spec, multiplier)
    forget_right = forget.answers(sae, features, intervention)
    retain_right = retain.answers(sae, features, intervention)
    forget_accuracy, chance = accuracy(forget_right), mean_chance(forget.known)
    ci95 = bootstrap_ci95(forget.known, forget_right.tolist(), n_resamples=spec.n_bootstrap, seed=spec.seed)
    return _Report(
        held_out=HeldOut(
            forget_accuracy=forget_accuracy,
            chance=chance,
            forgetting=forgetting(forget_accuracy, chance),
            retain_accuracy=accuracy(retain_right),
            ci95=ci95,
        ),
        below_chance=forget_accuracy < chance,
        retain_accuracy_by_domain=_by_domain(retain.known, retain_right),
        near_accuracy_by_domain=_by_domain(near.known, near.answers(sae, features, intervention)),
    )


def _unedited(shared: HookData) -> _Report:
    """The unedited model answers what it knows, by definition."""
    forget, retain = shared.forget["held_out"], shared.retain["held_out"]
    questions = forget.known or [q for split in shared.inputs.forget_questions.values() for q in split]
    return _Report(
        held_out=HeldOut(
            forget_accuracy=1.0,
            chance=mean_chance(questions),
            forgetting=0.0,
            retain_accuracy=1.0,
            ci95=(1.0, 1.0),
        ),
        below_chance=False,
        retain_accuracy_by_domain=dict.fromkeys(domains_of(retain.known), 1.0),
        near_accuracy_by_domain=dict.fromkeys(domains_of(shared.near.known), 1.0),
    )


def _by_member(subject: SaeUnderTest, sae: Any, features: Sequence[int]) -> list[MemberFeatures]:
    own = sae.by_member(features) if isinstance(sae, Ensemble) else [[] for _ in subject.members]
    return [MemberFeatures(path=str(path), features=f) for path, f in zip(subject.members, own, strict=True)]


def _by_domain(questions: Sequence[Question], right: torch.Tensor) -> dict[str, float]:
    domains = [question.domain for question in questions]
    return {domain: accuracy(right[torch.tensor([d == domain for d in domains])]) for domain in domains_of(questions)}


def _check_names(saes: Mapping[str, SaeUnderTest]) -> None:
    if not saes:
        raise UserError("There is no SAE to evaluate. Give at least one.")
    for name in saes:
        if not re.fullmatch(r"\w[\w.+-]*", name) or name in _RESERVED_NAMES:
            raise UserError(
                f"{name!r} cannot name an SAE: it becomes a file name. Use letters, digits and "
                f"'_', '.', '+', '-', and none of {', '.join(sorted(_RESERVED_NAMES))}."
            )


def _saved(out: Path, name: str, subject: SaeUnderTest, provenance: Provenance) -> UnlearningResult | None:
    """A saved result, unless it is absent, unreadable or of something else."""
    try:
        saved = UnlearningResult.model_validate(read_json(out / f"{name}.json"))
    except (UserError, ValidationError):
        return None
    same = saved.provenance == provenance and (saved.variant, saved.seed) == (subject.variant, subject.seed)
    return saved if same else None

"""Changed weights, evaluated as SAEs are: the same known questions, the same gate, the same measures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.models import model_digest, weights_digest
from sae_lens_contrastive.unlearning.answer_store import Answers
from sae_lens_contrastive.unlearning.forgetting import accuracy
from sae_lens_contrastive.unlearning.held_out import (
    HeldOutReport,
    edited_model_measures,
    report_of,
    unedited_report,
)
from sae_lens_contrastive.unlearning.measures import MeasureResults, ParaphraseResult, WeightEdit
from sae_lens_contrastive.unlearning.output import Provenance, SettingResult, UnlearningResult
from sae_lens_contrastive.unlearning.score import cause_of_zero, choose_setting, n_passing, unlearning_score
from sae_lens_contrastive.unlearning.settings import OptionValue
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.versions import package_versions


class WeightCandidate(NamedTuple):
    """Weights that one choice of hyperparameters led to."""

    options: dict[str, OptionValue]
    """The hyperparameters."""
    edit: WeightEdit
    """The weights."""


class AnsweredWeights(NamedTuple):
    """A candidate with the model's answers under its weights."""

    candidate: WeightCandidate
    answers: Answers
    result: SettingResult


def answer_with_weights(method: str, candidates: Iterable[WeightCandidate], data: HookData) -> list[AnsweredWeights]:
    """Put all questions to the model under the weights of each of the `candidates` for a `method`.

    Raises `UserError`, before a candidate is asked for, if the model knows too few questions.
    """
    if not data.knows_enough:
        raise UserError(f"The model knows too few questions to evaluate {method}: {data.known_counts}.")
    return [_answered(method, each, data, f"{method} {i}") for i, each in enumerate(candidates)]


def evaluate_weights(
    name: str,
    tried: Sequence[AnsweredWeights],
    data: HookData,
    out: Path | None,
    *,
    seed: int = 0,
    retain_gate: float | None = None,
) -> UnlearningResult:
    """Evaluate a way to change weights, whose candidates are settings: one is chosen on `select`, as those of SAEs are.

    `retain_gate` takes the place of the specification's. The result is saved as `<name>.json` with `out`.
    """
    started = time.perf_counter()
    frontier = [each.result for each in tried]
    gate = data.spec.retain_gate if retain_gate is None else retain_gate
    setting = choose_setting(frontier, gate, data.chance)
    chosen = None if setting is None else tried[frontier.index(setting)]
    report = unedited_report(data) if chosen is None else _report(name, chosen, data)
    result = UnlearningResult(
        name=name,
        variant=name,
        seed=seed,
        forget_domain=data.spec.forget_domain,
        unlearning_score=unlearning_score(frontier, gate),
        held_out=report.held_out,
        cause_of_zero=cause_of_zero(frontier, gate),
        retain_gate=gate,
        n_settings_passing=n_passing(frontier, gate),
        seconds=round(time.perf_counter() - started, 2),
        below_chance=report.below_chance,
        setting=setting,
        gate_threshold=None,
        features=[],
        retain_accuracy_by_domain=report.retain_accuracy_by_domain,
        near_accuracy=report.near_accuracy,
        near_accuracy_by_domain=report.near_accuracy_by_domain,
        measures=report.measures,
        known=data.known_counts,
        frontier=frontier,
        provenance=Provenance(
            sae_sha256="" if chosen is None else weights_digest(dict(chosen.candidate.edit.weights), ""),
            model_sha256=model_digest(data.model),
            spec_sha256=data.inputs.digest,
            versions=package_versions(),
        ),
    )
    if out is not None:
        write_json(out / f"{name}.json", result.model_dump())
    return result


def _answered(method: str, candidate: WeightCandidate, data: HookData, title: str) -> AnsweredWeights:
    with candidate.edit.in_place(data.model):
        answers = {name: each.present_answers(f"{name}, {title}") for name, each in data.evaluators.items()}
    return AnsweredWeights(candidate, answers, _result(method, candidate, answers))


def _result(method: str, candidate: WeightCandidate, answers: Answers) -> SettingResult:
    n_weights = len(candidate.edit.weights)

    def both(side: str) -> float:
        return accuracy(torch.cat([answers[f"{side}_select"], answers[f"{side}_held_out"]]))

    return SettingResult(
        selector="weights",
        selector_options={},
        n_features=n_weights,
        intervention=method,
        intervention_options=candidate.options,
        n_surviving=n_weights,
        n_selected=n_weights,
        forget_accuracy=accuracy(answers["forget_select"]),
        retain_accuracy=accuracy(answers["retain_select"]),
        forget_accuracy_all=both("forget"),
        retain_accuracy_all=both("retain"),
    )


def _report(title: str, tried: AnsweredWeights, data: HookData) -> HeldOutReport:
    edit, forget = tried.candidate.edit, data.evaluators["forget_held_out"]
    found = edited_model_measures(edit, data, title=title)
    with edit.in_place(data.model):
        near = data.near.present_answers("near questions")
        if data.spec.measures.paraphrases and len(right := forget.present_paraphrase_answers()):
            found["paraphrases"] = ParaphraseResult(n_paraphrases=len(right), accuracy=accuracy(right))
    return report_of(tried.answers, near, MeasureResults(**found), data)

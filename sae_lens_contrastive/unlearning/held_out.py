"""The chosen setting on questions that had no part in the choice, and everything else that is measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from sae_lens_contrastive.data.questions import Question, domains_of
from sae_lens_contrastive.interventions import Intervention
from sae_lens_contrastive.unlearning.answer_store import Answers
from sae_lens_contrastive.unlearning.ensemble import Ensemble
from sae_lens_contrastive.unlearning.forgetting import accuracy, bootstrap_ci95, forgetting, mean_chance
from sae_lens_contrastive.unlearning.measures import (
    MeasureResults,
    ParaphraseResult,
    RecallResults,
    SaeEdit,
    WeightEdit,
    random_baseline,
    recall_result,
    reconstruction,
    relearning,
    text_effects,
)
from sae_lens_contrastive.unlearning.output import HeldOut
from sae_lens_contrastive.unlearning.prompt_set import Edit
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.sweep import SweptSetting


@dataclass(frozen=True)
class HeldOutReport:
    """The held-out side of a result."""

    held_out: HeldOut
    below_chance: bool
    retain_accuracy_by_domain: dict[str, float]
    near_accuracy: float | None
    near_accuracy_by_domain: dict[str, float]
    measures: MeasureResults


def unedited_report(data: HookData) -> HeldOutReport:
    """The unedited model answers what it knows, by definition."""
    forget, retain = data.evaluators["forget_held_out"], data.evaluators["retain_held_out"]
    questions = forget.known or [q for split in data.inputs.forget_questions.values() for q in split]
    return HeldOutReport(
        held_out=HeldOut(
            forget_accuracy=1.0, chance=mean_chance(questions), forgetting=0.0, retain_accuracy=1.0, ci95=(1.0, 1.0)
        ),
        below_chance=False,
        retain_accuracy_by_domain=dict.fromkeys(domains_of(retain.known), 1.0),
        near_accuracy=1.0 if data.near.known else None,
        near_accuracy_by_domain=dict.fromkeys(domains_of(data.near.known), 1.0),
        measures=MeasureResults(),
    )


def held_out_report(sae: Any, chosen: SweptSetting, data: HookData, *, title: str) -> HeldOutReport:
    """What the answers at the chosen setting say of the held-out questions; near questions are put here."""
    (near_right,) = data.near.answers(sae, [chosen.edit])
    measures = _measures(sae, chosen.edit, data, accuracy(chosen.answers["forget_held_out"]), title)
    return report_of(chosen.answers, near_right, measures, data)


def report_of(
    answers: Answers, near_right: Bool[Tensor, " n_near"], measures: MeasureResults, data: HookData
) -> HeldOutReport:
    """What answers say of the held-out questions."""
    forget, retain = data.evaluators["forget_held_out"], data.evaluators["retain_held_out"]
    forget_right, retain_right = answers["forget_held_out"], answers["retain_held_out"]
    chance = mean_chance(forget.known)
    found = accuracy(forget_right)
    spec = data.spec
    return HeldOutReport(
        held_out=HeldOut(
            forget_accuracy=found,
            chance=chance,
            forgetting=forgetting(found, chance),
            retain_accuracy=accuracy(retain_right),
            ci95=bootstrap_ci95(forget.known, forget_right.tolist(), n_resamples=spec.n_bootstrap, seed=spec.seed),
        ),
        below_chance=found < chance,
        retain_accuracy_by_domain=_by_domain(retain.known, retain_right),
        near_accuracy=accuracy(near_right) if len(near_right) else None,
        near_accuracy_by_domain=_by_domain(data.near.known, near_right),
        measures=measures,
    )


def _measures(sae: Any, edit: Edit, data: HookData, forget_accuracy: float, title: str) -> MeasureResults:
    spec, wanted = data.spec, data.spec.measures
    whole = SaeEdit(sae, edit.features, edit.intervention, special_tokens=spec.edit_special_tokens)
    forget = data.evaluators["forget_held_out"]
    found = edited_model_measures(whole, data, title=title)
    if wanted.random_baseline is not None:
        found["random_baseline"] = random_baseline(
            data.evidence(sae, gradients=False).forget.rate,
            edit.features,
            lambda sets: _answers_of(sae, sets, edit.intervention, data),
            wanted.random_baseline,
            forget_accuracy=forget_accuracy,
            chance=mean_chance(forget.known),
            retain_gate=spec.retain_gate,
            seed=spec.seed,
            title=f"random features, {title}",
        )
    if wanted.paraphrases and len(right := forget.paraphrase_answers(sae, edit)):
        found["paraphrases"] = ParaphraseResult(n_paraphrases=len(right), accuracy=accuracy(right))
    if wanted.reconstruction is not None and not isinstance(sae, Ensemble):
        found["reconstruction"] = reconstruction(
            data.model,
            data.hook_name,
            sae,
            data.retain_text.contexts,
            wanted.reconstruction,
            batch_tokens=spec.batch_tokens,
        )
    return MeasureResults(**found)


def edited_model_measures(edit: SaeEdit | WeightEdit, data: HookData, *, title: str) -> dict[str, Any]:
    """The measures that are wanted of those which run the edited model on something else than options."""
    spec, wanted = data.spec, data.spec.measures
    found: dict[str, Any] = {}
    if wanted.text_effects is not None:
        contexts = data.forget_text.contexts, data.retain_text.contexts
        found["text_effects"] = text_effects(
            data.model, data.hook_name, edit, *contexts, wanted.text_effects, batch_tokens=spec.batch_tokens
        )
    if wanted.recall is not None:
        sides = {side: recall_result(data.recalled(side), data.recalled(side, edit)) for side in ("forget", "retain")}
        found["recall"] = RecallResults(**sides)
    if (options := wanted.relearning) is not None:
        material = data.forget_text.contexts if options.material == "text" else data.evaluators["forget_select"].known
        found["relearning"] = relearning(
            data.model,
            data.hook_name,
            edit,
            material,
            data.evaluators["forget_held_out"].known,
            spec.prompt,
            options,
            seed=spec.seed,
            batch_tokens=spec.batch_tokens,
            title=f"relearning, {title}",
        )
    return found


def _answers_of(
    sae: Any, sets: Sequence[tuple[int, ...]], intervention: Intervention, data: HookData
) -> list[tuple[Tensor, Tensor]]:
    """Held-out answers under other choices of features, with the gate, if there is one, fitted on each."""
    edits = [Edit(features, intervention) for features in sets]
    if intervention.needs_retain_text:
        features = sorted({feature for each in sets for feature in each})
        column = {feature: i for i, feature in enumerate(features)}
        acts, tokens = data.retain_acts(sae, features)
        edits = [Edit(each, intervention.fitted(acts[:, [column[f] for f in each]], tokens)) for each in sets]
    forget, retain = (data.evaluators[f"{side}_held_out"].answers(sae, edits) for side in ("forget", "retain"))
    return list(zip(forget, retain, strict=True))


def _by_domain(questions: Sequence[Question], right: Bool[Tensor, " n"]) -> dict[str, float]:
    domains = [question.domain for question in questions]
    return {domain: accuracy(right[torch.tensor([d == domain for d in domains])]) for domain in domains_of(questions)}

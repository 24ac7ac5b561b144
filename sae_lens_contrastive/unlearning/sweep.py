"""Every setting of a specification, on all questions that were put."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from sae_lens_contrastive.interventions import Intervention
from sae_lens_contrastive.unlearning.answer_store import Answers, AnswerStore
from sae_lens_contrastive.unlearning.forgetting import accuracy
from sae_lens_contrastive.unlearning.output import SettingResult
from sae_lens_contrastive.unlearning.prompt_set import Edit
from sae_lens_contrastive.unlearning.settings import Setting
from sae_lens_contrastive.unlearning.shared import HookData

_EDITS_AT_ONCE = 8
"""Edits that run together: more share more, fewer are lost when a run is killed."""


@dataclass(frozen=True)
class SweptSetting:
    """A setting with the edit that it stands for and its outcome."""

    setting: Setting
    """The setting."""
    edit: Edit
    """Features and intervention, fitted on retain text if it needs that."""
    answers: Answers
    """Which known questions are still answered right."""
    result: SettingResult
    """What came of it."""


def sweep(sae: Any, data: HookData, store: AnswerStore, *, title: str) -> list[SweptSetting]:
    """Answer every known question under every setting that `store` does not hold yet.

    Settings that come to the same edit are answered once.
    """
    edits, n_surviving = _edits(sae, data)
    answers = _answers(sae, list(dict.fromkeys(edits)), data, store, title)
    return [
        SweptSetting(setting, edit, answers[edit], _result(setting, edit, n, answers[edit]))
        for setting, edit, n in zip(data.spec.settings, edits, n_surviving, strict=True)
    ]


def _edits(sae: Any, data: HookData) -> tuple[list[Edit], list[int]]:
    """The edit of every setting, and how many features its selector lets through."""
    settings = data.spec.settings
    evidence = data.evidence(sae, gradients=any(s.selector.built.needs_gradients for s in settings))
    ranked = {id(s.selector): s.selector.built(evidence).tolist() for s in settings}
    chosen = [tuple(ranked[id(s.selector)][: s.n_features]) for s in settings]
    wants_text = [s.intervention.built.needs_retain_text for s in settings]
    features = sorted({f for each, wants in zip(chosen, wants_text, strict=True) if wants for f in each})
    acts, tokens = data.retain_acts(sae, features) if features else (torch.empty(0, 0), None)
    column = {feature: i for i, feature in enumerate(features)}
    edits = []
    for setting, selected, wants in zip(settings, chosen, wants_text, strict=True):
        intervention: Intervention = setting.intervention.built
        if wants and selected:
            assert tokens is not None
            intervention = intervention.fitted(acts[:, [column[f] for f in selected]], tokens)
        edits.append(Edit(selected, intervention))
    return edits, [len(ranked[id(s.selector)]) for s in settings]


def _answers(sae: Any, edits: Sequence[Edit], data: HookData, store: AnswerStore, title: str) -> dict[Edit, Answers]:
    answers = {edit: saved for edit in edits if (saved := store.get(edit)) is not None}
    untouched = {edit: data.unedited_answers() for edit in edits if edit not in answers and not edit.features}
    answers |= untouched
    pending = [edit for edit in edits if edit not in answers]
    with tqdm(desc=f"settings, {title}", unit="prompt", total=0, disable=not pending) as progress:
        for first in range(0, len(pending), _EDITS_AT_ONCE):
            group = pending[first : first + _EDITS_AT_ONCE]
            found: dict[Edit, Answers] = {edit: {} for edit in group}
            for name, evaluator in data.evaluators.items():
                for edit, right in zip(group, evaluator.answers(sae, group, progress), strict=True):
                    found[edit][name] = right
            store.add(found)
            answers |= found
    return answers


def _result(setting: Setting, edit: Edit, n_surviving: int, answers: Answers) -> SettingResult:
    result = SettingResult(
        selector=setting.selector.name,
        selector_options=setting.selector.options,
        n_features=setting.n_features,
        intervention=setting.intervention.name,
        intervention_options=setting.intervention.options,
        n_surviving=n_surviving,
        n_selected=len(edit.features),
        forget_accuracy=accuracy(answers["forget_select"]),
        retain_accuracy=accuracy(answers["retain_select"]),
    )
    if "forget_held_out" not in answers:
        return result
    pooled = {
        f"{side}_accuracy_all": accuracy(torch.cat([answers[f"{side}_select"], answers[f"{side}_held_out"]]))
        for side in ("forget", "retain")
    }
    return result.model_copy(update=pooled)

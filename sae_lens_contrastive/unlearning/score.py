"""From accuracies to scores; nothing here runs a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sae_lens_contrastive.unlearning.output import CauseOfZero, SettingResult


def unlearning_score(frontier: Sequence[SettingResult], retain_gate: float) -> float:
    """1 - min forget accuracy over the settings with retain accuracy >= `retain_gate`; 0 if there is none.

    Accuracies are on the questions of all splits, which the unedited model answers right, rounded to 32 bits as in the
    original. Karvonen et al. 2025, "SAEBench".
    """
    passing = [forget for forget, retain in map(_on_all, frontier) if retain >= retain_gate]
    return 1 - float(np.float32(min(passing))) if passing else 0.0


def n_passing(frontier: Sequence[SettingResult], retain_gate: float) -> int:
    """Settings that edit a feature and pass the gate on the `select` questions."""
    return sum(s.retain_accuracy >= retain_gate and s.n_selected > 0 for s in frontier)


def choose_setting(
    frontier: Sequence[SettingResult], retain_gate: float, chance: float, n_questions: int
) -> SettingResult | None:
    """The setting to report, chosen on `select`: the one that keeps most of those that forget about most.

    Of the settings that edit something and pass the gate there, those count whose forget accuracy is within one
    standard error, sqrt(p (1 - p) / n_questions), of the lowest p: so few questions cannot tell them apart. Below
    `chance`, the accuracy of guessing on these questions, nothing more is forgotten: all such settings count as at
    chance. Among them the highest retain accuracy decides, then the lowest forget accuracy, fewer features, and the
    order of the sweep. None if no setting passes. Source: Breiman et al. 1984, "Classification and Regression Trees"
    (1-SE rule).
    """
    passing = [s for s in frontier if s.retain_accuracy >= retain_gate and s.n_selected > 0]
    if not passing:
        return None
    lowest = min(max(s.forget_accuracy, chance) for s in passing)
    enough = lowest + math.sqrt(lowest * (1 - lowest) / n_questions)
    about_lowest = [s for s in passing if max(s.forget_accuracy, chance) <= enough]
    return min(about_lowest, key=lambda s: (-s.retain_accuracy, max(s.forget_accuracy, chance), s.n_features))


def cause_of_zero(frontier: Sequence[SettingResult], retain_gate: float) -> CauseOfZero | None:
    """Why the score is 0, or None if it is not.

    `no_features`: no setting selects a feature. `no_effect`: no setting changes a forget answer.
    `retain_gate`: those that do break retained knowledge.
    """
    if unlearning_score(frontier, retain_gate) > 0:
        return None
    if not any(s.n_selected for s in frontier):
        return "no_features"
    if all(forget == 1 for forget, _ in map(_on_all, frontier)):
        return "no_effect"
    return "retain_gate"


def _on_all(setting: SettingResult) -> tuple[float, float]:
    """Forget and retain accuracy on all questions that were put."""
    if setting.forget_accuracy_all is None or setting.retain_accuracy_all is None:
        return setting.forget_accuracy, setting.retain_accuracy
    return setting.forget_accuracy_all, setting.retain_accuracy_all

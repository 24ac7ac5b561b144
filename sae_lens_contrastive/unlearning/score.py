"""From accuracies to scores; nothing here runs a model."""

from __future__ import annotations

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


def choose_setting(frontier: Sequence[SettingResult], retain_gate: float, chance: float) -> SettingResult | None:
    """The setting that forgets most on `select` and passes the gate there; None if none that edits anything does.

    Below `chance`, the accuracy of guessing on these questions, nothing more is forgotten: all such settings count as
    at chance. Ties: higher retain accuracy, then fewer features, then the order of the sweep.
    """
    passing = [s for s in frontier if s.retain_accuracy >= retain_gate and s.n_selected > 0]
    return min(passing, key=lambda s: (max(s.forget_accuracy, chance), -s.retain_accuracy, s.n_features), default=None)


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

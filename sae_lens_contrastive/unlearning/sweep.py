"""Every setting of a specification on the questions that choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.features.selection import Selection, select_features
from sae_lens_contrastive.interventions import Intervention, intervention_class
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.output import SettingResult
from sae_lens_contrastive.unlearning.spec import EvalSpec


@dataclass(frozen=True)
class FiringRates:
    """Firing rates of one SAE's features on both corpora."""

    forget: Float[Tensor, " d_sae"]
    """Share of forget tokens on which each feature fires."""
    retain: Float[Tensor, " d_sae"]
    """Share of retain tokens on which each feature fires."""

    def select(self, retain_threshold: float, n_features: int) -> Selection:
        """Features to edit under one threshold."""
        return select_features(self.forget, self.retain, retain_threshold, n_features)


def build_intervention(spec: EvalSpec, multiplier: float) -> Intervention:
    """The intervention of a specification at one multiplier; 0 stands for none."""
    chosen = intervention_class(spec.intervention)
    return chosen(multiplier=multiplier) if multiplier else chosen()


def sweep(
    sae: Any,
    spec: EvalSpec,
    rates: FiringRates,
    forget: QuestionEvaluator,
    retain: QuestionEvaluator,
    *,
    title: str,
) -> list[SettingResult]:
    """Forget and retain accuracy of every retain_threshold, n_features and multiplier.

    Features are encoded once per threshold: a smaller n_features takes the first of a larger one. Settings
    that select the same features are answered once.
    """
    multipliers = _multipliers(spec)
    frontier: list[SettingResult] = []
    answered: dict[tuple[tuple[int, ...], float], tuple[float, float]] = {}
    total = len(spec.retain_thresholds) * len(spec.n_features) * len(multipliers)
    with tqdm(total=total, desc=f"settings, {title}", unit="setting") as progress:
        for threshold in spec.retain_thresholds:
            widest = rates.select(threshold, max(spec.n_features))
            acts = [side.acts(sae, widest.features) for side in (forget, retain)]
            for n_features in spec.n_features:
                features = widest.features[:n_features]
                for multiplier in multipliers:
                    key = (features, multiplier)
                    if key not in answered:
                        intervention = build_intervention(spec, multiplier)
                        forget_right, retain_right = (
                            side.answers(sae, features, intervention, acts=side_acts[:, : len(features)])
                            for side, side_acts in zip((forget, retain), acts, strict=True)
                        )
                        answered[key] = accuracy(forget_right), accuracy(retain_right)
                    forget_accuracy, retain_accuracy = answered[key]
                    frontier.append(
                        SettingResult(
                            retain_threshold=threshold,
                            n_features=n_features,
                            multiplier=multiplier,
                            n_surviving=widest.n_surviving,
                            n_selected=len(features),
                            forget_accuracy=forget_accuracy,
                            retain_accuracy=retain_accuracy,
                        )
                    )
                    progress.update()
    return frontier


def accuracy(right: Bool[Tensor, " n_known"]) -> float:
    """Share of questions answered right, exact: 1 means all of them."""
    return int(right.sum()) / len(right)


def _multipliers(spec: EvalSpec) -> Sequence[float]:
    takes_one = "multiplier" in {field.name for field in fields(intervention_class(spec.intervention))}
    return spec.multipliers if takes_one else [0.0]

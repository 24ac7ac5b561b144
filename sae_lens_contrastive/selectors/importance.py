"""Ranking by importance: activation, effect on the loss and information, weighted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.selectors.base import (
    Selector,
    attribution_of,
    check_retain_threshold,
    ranked,
    register_selector,
    surviving,
)
from sae_lens_contrastive.selectors.mutual_information import information
from sae_lens_contrastive.selectors.statistics import Evidence

_WEIGHTS = ("activation_weight", "gradient_weight", "mutual_information_weight")


@register_selector("importance")
@dataclass(frozen=True)
class Importance(Selector):
    """Sort by I_i = w_a · â_i + w_g · ĝ_i + w_m · m̂_i over the surviving features.

    a_i = max(0, mean activation on forget text less that on retain text), g_i = |attribution on forget text|,
    m_i = mutual information of firing and corpus, 0 where p_i(forget) <= p_i(retain); each divided by its maximum over
    the surviving features, and 0 where that is 0.
    """

    needs_gradients: ClassVar[bool] = True

    activation_weight: float = 0.35
    """w_a, share of the contrast of mean activations; the three weights sum to 1."""
    gradient_weight: float = 0.5
    """w_g, share of the effect on the loss."""
    mutual_information_weight: float = 0.15
    """w_m, share of the mutual information."""
    retain_threshold: float = 0.01
    """Features that fire on this share of retain tokens or more are dropped, in (0, 1]."""

    def __post_init__(self) -> None:
        check_retain_threshold(self.retain_threshold)
        weights = {name: getattr(self, name) for name in _WEIGHTS}
        if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
            listed = ", ".join(f"{name} {value}" for name, value in weights.items())
            raise ConfigError(
                f"importance has {listed}; each must be 0 or more and their sum 1, it is {sum(weights.values()):.6g}."
            )

    @override
    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the surviving features, most important first."""
        forget, retain = evidence.forget, evidence.retain
        survives = surviving(evidence, self.retain_threshold)
        raw = torch.stack(
            [
                (forget.mean - retain.mean).clamp(min=0),
                attribution_of("importance", forget).abs(),
                information(evidence).where(forget.rate > retain.rate, 0),
            ]
        )
        weights = torch.tensor([getattr(self, name) for name in _WEIGHTS], dtype=torch.float64)
        return ranked(weights @ _scaled(raw.where(survives, 0)), survives)


def _scaled(raw: Float64[Tensor, "3 d_sae"]) -> Float64[Tensor, "3 d_sae"]:
    maximum = raw.amax(dim=1, keepdim=True)
    return raw / maximum.where(maximum > 0, 1)

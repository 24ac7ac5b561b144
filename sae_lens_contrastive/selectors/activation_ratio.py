"""DSG's ranking: features far stronger on forget than on retain text, the strongest on forget text first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.selectors.base import Selector, ranked, register_selector
from sae_lens_contrastive.selectors.statistics import Evidence

_TINY = 1e-21
"""Added to the mean square on retain text, so that features silent there are ordered by their strength on forget."""


@register_selector("activation_ratio")
@dataclass(frozen=True)
class ActivationRatio(Selector):
    """Keep features by the ratio of mean squares m_i = E[z_i²(forget)] / E[z_i²(retain)], sort by E[z_i²(forget)].

    Those at or above the `ratio_percentile`-th percentile of m over the features that fire on forget text are kept
    (interpolated). Muhamed et al. 2025, "SAEs Can Improve Unlearning: Dynamic Sparse Autoencoder Guardrails for
    Precision Unlearning in LLMs"; a mean square is the diagonal of the Fisher information they start from.
    """

    ratio_percentile: float = 95.0
    """Percentile of the ratio, in [0, 100], that a feature must reach."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio_percentile <= 100:
            raise ConfigError(f"ratio_percentile is {self.ratio_percentile!r}. Give one in [0, 100], such as 95.")

    @override
    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the features that are kept, highest mean square on forget text first."""
        strength = evidence.forget.mean_square
        survives = evidence.forget.n_fired > 0
        if bool(survives.any()):
            ratio = strength / (evidence.retain.mean_square + _TINY)
            survives = survives & (ratio >= float(np.percentile(ratio[survives].numpy(), self.ratio_percentile)))
        return ranked(strength, survives)

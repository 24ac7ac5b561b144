"""The features that training set aside for the forget domain."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.selectors.base import Selector, check_retain_threshold, ranked, register_selector, surviving
from sae_lens_contrastive.selectors.statistics import Evidence


@register_selector("reserved")
@dataclass(frozen=True)
class Reserved(Selector):
    """Keep the features that a loss term reserved in training, sort by p_i(forget).

    Nothing survives of an SAE without reserved features.
    """

    retain_threshold: float = 1.0
    """Features that fire on this share of retain tokens or more are dropped, in (0, 1]; 1 drops those that always
    fire."""

    def __post_init__(self) -> None:
        check_retain_threshold(self.retain_threshold)

    @override
    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the surviving features, highest rate on forget text first."""
        return ranked(evidence.forget.rate, surviving(evidence, self.retain_threshold) & evidence.reserved)

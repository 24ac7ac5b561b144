"""Ranking by effect on the loss: features that the model needs on forget text and not on retain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.selectors.base import (
    Selector,
    attribution_of,
    check_retain_threshold,
    ranked,
    register_selector,
    surviving,
)
from sae_lens_contrastive.selectors.statistics import Evidence


@register_selector("attribution")
@dataclass(frozen=True)
class Attribution(Selector):
    """Sort by how much more a feature lowers the loss on forget than on retain text: A_i(retain) - A_i(forget).

    A_i = E_t[z_ti · ⟨∂L/∂resid_t, d_i⟩] is what the feature adds to the loss, so -A_i is to first order what the loss
    would rise by without it, in nats per token (attribution patching, Nanda 2023). Features for which the difference is
    0 or less are dropped: without them the model would lose no more on forget than on retain text.
    """

    needs_gradients: ClassVar[bool] = True

    retain_threshold: float = 0.01
    """Features that fire on this share of retain tokens or more are dropped, in (0, 1]."""

    def __post_init__(self) -> None:
        check_retain_threshold(self.retain_threshold)

    @override
    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the surviving features, the one that forget text needs most first."""
        forget, retain = (attribution_of("attribution", side) for side in (evidence.forget, evidence.retain))
        need = retain - forget
        return ranked(need, surviving(evidence, self.retain_threshold) & (need > 0))

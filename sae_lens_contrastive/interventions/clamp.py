"""The clamp: a feature that fires is made to say the opposite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.interventions.base import Intervention, TokenTable, check_multiplier, register_intervention


@register_intervention("clamp")
@dataclass(frozen=True)
class Clamp(Intervention):
    """Set a feature to -multiplier where it fires: z_i ← -c if z_i > 0 (Farrell et al. 2024)."""

    multiplier: float
    """How far below zero, in units of the feature's activation."""

    def __post_init__(self) -> None:
        check_multiplier(self.multiplier)

    @override
    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], _tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return -multiplier where a feature fires, its activation elsewhere."""
        return torch.where(acts > 0, -self.multiplier, acts)

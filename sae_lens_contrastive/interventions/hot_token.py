"""The hot-token clamp: one selected feature that fires brings all of them down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.interventions.base import Intervention, TokenTable, check_multiplier, register_intervention


@register_intervention("hot_token_clamp")
@dataclass(frozen=True)
class HotTokenClamp(Intervention):
    """Set all selected features to -multiplier on tokens where any of them fires: z_i ← -c if max_j z_j > 0.

    Stronger than the clamp by the number of features: the edit of a hot token is the same wherever it stands.
    """

    multiplier: float
    """How far below zero, in units of the feature's activation."""

    def __post_init__(self) -> None:
        check_multiplier(self.multiplier)

    @override
    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], _tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return -multiplier for every feature of a hot token, the activations of the others."""
        hot = (acts > 0).any(dim=1, keepdim=True)
        return torch.where(hot, -self.multiplier, acts)

"""Ablation: a feature is switched off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.interventions.base import Intervention, TokenTable, register_intervention


@register_intervention("zero")
@dataclass(frozen=True)
class Zero(Intervention):
    """Switch a feature off: z_i ← 0."""

    @override
    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], _tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return zeros."""
        return torch.zeros_like(acts)

"""Which features to edit: firing rates on forget and retain text, and the ranking made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Features to edit under one threshold."""

    features: tuple[int, ...]
    """Indices into the dictionary, the one that fires most on forget text first."""
    n_surviving: int
    """Features that fire on forget text and stay below the retain threshold."""


@torch.no_grad()
def firing_rates(sae: Any, residuals: Float[Tensor, "n_tokens d_in"], batch: int = 4096) -> Float[Tensor, " d_sae"]:
    """Share of tokens on which each feature fires: p_i = 1/n · Σ_t 1[z_ti > 0]."""
    counts = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.W_dec.device)
    for tokens in residuals.split(batch):
        counts += (sae.encode(tokens.to(sae.W_dec.device, sae.W_dec.dtype)) > 0).sum(dim=0)
    return counts.double() / len(residuals)


def select_features(
    forget_rates: Float[Tensor, " d_sae"],
    retain_rates: Float[Tensor, " d_sae"],
    retain_threshold: float,
    n_features: int,
) -> Selection:
    """Drop features with p_i(retain) >= `retain_threshold`, sort by p_i(forget), ties by index, take
    `n_features`.

    Features that never fire on forget text are not selected: an edit of them does nothing there. Farrell et
    al. 2024, "Applying sparse autoencoders to unlearn knowledge in language models".
    """
    survives = (retain_rates < retain_threshold) & (forget_rates > 0)
    order = torch.sort(forget_rates, descending=True, stable=True).indices
    ranked = order[survives[order]]
    return Selection(features=tuple(ranked[:n_features].tolist()), n_surviving=len(ranked))

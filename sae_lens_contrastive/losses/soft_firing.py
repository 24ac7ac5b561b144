"""Whether a feature fires, in a form that has a gradient."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_HUGE = 1e30


def soft_firing(
    feature_acts: Float[Tensor, "n d_sae"],
    hidden_pre: Float[Tensor, "n d_sae"],
    features: Int[Tensor, " m"],
    steepness: float,
    sae: Any = None,
) -> Float[Tensor, "n m"]:
    """Soft firing probability sigmoid(steepness * (hidden_pre - theta)) of chosen features.

    theta is the level above which a feature fires, without gradient: midway between the lowest pre-activation that
    fires on the token and the highest that does not (about 0 for a ReLU SAE, between the k-th and the next for TopK; 0
    if either is missing). If the SAE has thresholds of its own (JumpReLU), theta is these, with gradient. steepness is
    in 1 / units of pre-activations.
    """
    threshold = getattr(sae, "threshold", None)
    theta = firing_level(feature_acts, hidden_pre) if threshold is None else threshold[features]
    return torch.sigmoid(steepness * (hidden_pre.index_select(1, features) - theta))


@torch.no_grad()
def firing_level(feature_acts: Float[Tensor, "n d_sae"], hidden_pre: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n 1"]:
    """Level above which a feature fires on each token: theta of `soft_firing` where the SAE has no thresholds."""
    # Adding a huge number where a feature fires or is silent takes a third of the time of masks.
    fires = feature_acts.sign()
    lowest_firing = (hidden_pre + _HUGE * (1 - fires)).amin(dim=1, keepdim=True)
    highest_silent = (hidden_pre - _HUGE * fires).amax(dim=1, keepdim=True)
    both = (lowest_firing < _HUGE / 2) & (highest_silent > -_HUGE / 2)
    return torch.where(both, (lowest_firing + highest_silent) / 2, 0.0)

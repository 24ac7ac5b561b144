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
    if either is missing). If the SAE has thresholds of its own, theta is these: see `own_thresholds`. steepness is in
    1 / units of pre-activations.
    """
    thresholds = own_thresholds(sae)
    theta = firing_level(feature_acts, hidden_pre) if thresholds is None else thresholds[features]
    return torch.sigmoid(steepness * (hidden_pre.index_select(1, features) - theta))


def own_thresholds(sae: Any) -> Float[Tensor, " d_sae"] | None:
    """Levels above which features fire whatever the token; None if that depends on the token.

    Those of a JumpReLU SAE, with gradient, and the running threshold of a BatchTopK SAE, with which it is saved.
    """
    running = getattr(sae, "topk_threshold", None)
    if running is not None:
        return running.detach().to(sae.W_enc).expand(sae.cfg.d_sae)
    return getattr(sae, "threshold", None)


def encode_as_saved(sae: Any, x: Float[Tensor, "n d_in"]) -> tuple[Float[Tensor, "n d_sae"], Float[Tensor, "n d_sae"]]:
    """Activations as the saved SAE will have them, and pre-activations.

    A BatchTopK SAE in training shares its activations out over the tokens it is given together; saved it does not.
    """
    acts, hidden_pre = sae.encode_with_hidden_pre(x)
    if hasattr(sae, "topk_threshold"):
        acts = hidden_pre * (hidden_pre > own_thresholds(sae))
    return acts, hidden_pre


@torch.no_grad()
def firing_level(feature_acts: Float[Tensor, "n d_sae"], hidden_pre: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n 1"]:
    """Level above which a feature fires on each token: theta of `soft_firing` where the SAE has no thresholds."""
    # Adding a huge number where a feature fires or is silent takes a third of the time of masks.
    fires = feature_acts.sign()
    lowest_firing = torch.add(hidden_pre, 1 - fires, alpha=_HUGE).amin(dim=1, keepdim=True)
    highest_silent = torch.add(hidden_pre, fires, alpha=-_HUGE).amax(dim=1, keepdim=True)
    both = (lowest_firing < _HUGE / 2) & (highest_silent > -_HUGE / 2)
    return torch.where(both, (lowest_firing + highest_silent) / 2, 0.0)

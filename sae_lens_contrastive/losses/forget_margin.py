"""Forget-margin term: a reserved set of features fires on the forget domain and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import FORGET, LossContext, LossTerm, register_loss_term


@register_loss_term("forget_margin")
@dataclass(frozen=True)
class ForgetMargin(LossTerm):
    """Reserve the first `n_features` features G for the forget domain.

    L = retain_weight * mean over tokens with y != forget of sum over i in G of relu(hidden_pre_i)
      + forget_weight * mean over tokens with y = forget of max(0, margin - max over i in G of hidden_pre_i).
    In units of pre-activations.
    """

    n_features: int = 20
    """|G|: features 0 to n_features - 1 are reserved."""
    margin: float = 1.0
    """m, the pre-activation that one reserved feature should reach on every forget token."""
    retain_weight: float = 1.0
    """Weight of reserved features firing outside the forget domain."""
    forget_weight: float = 1.0
    """Weight of forget tokens on which no reserved feature reaches the margin."""

    needs_domains = True
    over_ranks = True

    def __post_init__(self) -> None:
        if self.n_features < 1:
            raise ConfigError(f"forget_margin.n_features is {self.n_features}; it must be 1 or more.")
        if min(self.retain_weight, self.forget_weight) < 0:
            raise ConfigError("forget_margin.retain_weight and forget_weight must be 0 or more.")

    @property
    def n_reserved(self) -> int:
        """The features of G."""
        return self.n_features

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Hinge on forget tokens plus leakage on all others; a side without tokens counts 0."""
        is_forget = ctx.labels() == FORGET
        reserved = ctx.pre_activations(torch.arange(self.n_features, device=is_forget.device))
        leakage = torch.relu(reserved[~is_forget]).sum(dim=1)
        shortfall = torch.relu(self.margin - reserved[is_forget].amax(dim=1))
        of_all = ctx.labels_of_all()
        n_forget = (of_all == FORGET).sum()
        retain_loss = self.retain_weight * ctx.mean(leakage, len(of_all) - n_forget)
        return retain_loss + self.forget_weight * ctx.mean(shortfall, n_forget)
